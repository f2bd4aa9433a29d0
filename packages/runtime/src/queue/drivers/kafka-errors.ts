/** What the errors of Kafka mean to a caller. */
import { UnavailableError } from "../../kernel/errors.ts";

/** Error codes of the protocol that are told apart here (the protocol guide's list). */
export const kafkaErrors = {
  offsetOutOfRange: 1,
  unknownTopic: 3,
  leaderNotAvailable: 5,
  notLeader: 6,
  requestTimedOut: 7,
  messageTooLarge: 10,
  coordinatorLoading: 14,
  coordinatorNotAvailable: 15,
  notCoordinator: 16,
  notEnoughReplicas: 19,
  notEnoughReplicasAfterAppend: 20,
  illegalGeneration: 22,
  inconsistentProtocol: 23,
  unknownMember: 25,
  rebalanceInProgress: 27,
  topicForbidden: 29,
  groupForbidden: 30,
  clusterForbidden: 31,
  topicExists: 36,
  invalidReplicationFactor: 38,
  outOfOrderSequence: 45,
  duplicateSequence: 46,
  invalidProducerEpoch: 47,
  storageError: 56,
  unknownProducer: 59,
  fencedLeaderEpoch: 74,
  memberIdRequired: 79,
} as const;

const forbidden: readonly number[] = [
  kafkaErrors.topicForbidden,
  kafkaErrors.groupForbidden,
  kafkaErrors.clusterForbidden,
];

/** There was no connection, it broke, or no answer came in time: the request may have been carried out. */
export class KafkaLinkError extends Error {
  override readonly name = "KafkaLinkError";
}

/** The broker answered that it cannot do it. */
export class KafkaAnswerError extends Error {
  override readonly name = "KafkaAnswerError";
  readonly code: number;

  constructor(what: string, code: number) {
    const known = Object.entries(kafkaErrors).find(([, value]) => value === code)?.[0];
    const advice = forbidden.includes(code) ? ". The user needs more rights; see docs/operating/kafka.md" : "";
    super(`${what}: error ${code}${known === undefined ? "" : ` (${known})`}${advice}`);
    this.code = code;
  }
}

/** What the caller gets. The port's calls may all be repeated. */
export function brokerUnreachable(what: string, error: unknown): UnavailableError {
  const why = error instanceof Error ? error.message : String(error);
  return new UnavailableError("BROKER_UNREACHABLE", `Kafka could not ${what}: ${why}. Try again.`, {
    canRetry: true,
    cause: error,
  });
}

/** The answer of an error that the package raises for one with error codes in it; undefined for any other error. */
export function answerOf<Answer>(error: unknown): Answer | undefined {
  if (typeof error !== "object" || error === null || !("response" in error)) return undefined;
  return (error.response ?? undefined) as Answer | undefined;
}
