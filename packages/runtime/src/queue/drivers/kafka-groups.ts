/** A handler's consumer group as a whole: where it begins, what waits for it, and going back in time. */
import { ConflictError } from "../../kernel/errors.ts";
import type { KafkaCluster } from "./kafka-cluster.ts";
import { KafkaAnswerError, kafkaErrors } from "./kafka-errors.ts";
import {
  commitProgress,
  committedProgress,
  earliest,
  latest,
  noMember,
  startingAt,
  topicOffsets,
} from "./kafka-offsets.ts";

/** The group of a handler, and the topic of its event. */
export interface HandlerGroup {
  readonly cluster: KafkaCluster;
  readonly group: string;
  readonly topic: string;
}

/**
 * A handler that was never seen begins with what is published from now on; one that was, in partitions that are new, with their first
 * message. The ends are read before it is looked whether another process has set the beginning: that one's declaration was not over
 * then, so nothing that it counts on lies below these ends. Raises `KafkaLinkError` and `KafkaAnswerError`.
 */
export async function beginGroup({ cluster, group, topic }: HandlerGroup): Promise<void> {
  const ends = await topicOffsets(cluster, topic, latest);
  const coordinator = await cluster.coordinatorOf(group);
  const known = await committedProgress({ cluster, coordinator, group, topic, partitions: [...ends.keys()] });
  if ([...ends.keys()].every((partition) => known.has(partition))) return;
  const from = known.size === 0 ? ends : await topicOffsets(cluster, topic, earliest);
  const progress = startingAt(new Map([...from].filter(([partition]) => !known.has(partition))));
  const failed = await commitProgress({ cluster, coordinator, group, topic, identity: noMember, progress });
  const [code] = failed.values();
  // Those who work on it read new partitions from their first message.
  if (code === undefined || isAtWork(code)) return;
  throw new KafkaAnswerError(`the beginning of ${group} cannot be set`, code);
}

/** Messages that are not done. Raises `KafkaLinkError` and `KafkaAnswerError`. */
export async function countWaiting({ cluster, group, topic }: HandlerGroup): Promise<number> {
  const coordinator = await cluster.coordinatorOf(group);
  const ends = await topicOffsets(cluster, topic, latest);
  const known = await committedProgress({ cluster, coordinator, group, topic, partitions: [...ends.keys()] });
  let messages = 0;
  for (const [partition, { low, seen, open }] of known) {
    messages += Math.max(0, (ends.get(partition) ?? 0) - low) - Math.max(0, seen - low - open.length);
  }
  return Math.max(0, messages);
}

/**
 * Puts the group back to the first message of a time in ms since 1970 or later. Raises `HANDLER_AT_WORK` while the group has members,
 * `KafkaLinkError` and `KafkaAnswerError`.
 */
export async function rewindGroup({ cluster, group, topic }: HandlerGroup, fromMs: number): Promise<void> {
  const progress = startingAt(await topicOffsets(cluster, topic, fromMs));
  const coordinator = await cluster.coordinatorOf(group);
  const failed = await commitProgress({ cluster, coordinator, group, topic, identity: noMember, progress });
  const [code] = failed.values();
  if (code === undefined) return;
  if (!isAtWork(code)) throw new KafkaAnswerError(`the offsets of ${group} cannot be set`, code);
  const message = `${group} cannot be put back while processes work on it. Stop them, then try again.`;
  throw new ConflictError("HANDLER_AT_WORK", message);
}

/** The coordinator takes commits of members only while there are any. */
function isAtWork(code: number): boolean {
  const codes: readonly number[] = [
    kafkaErrors.unknownMember,
    kafkaErrors.illegalGeneration,
    kafkaErrors.rebalanceInProgress,
  ];
  return codes.includes(code);
}
