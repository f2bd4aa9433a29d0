/** Offsets of a group and of a topic: read, set and looked up by time. */
import type { ServerNode } from "../../kernel/server-address.ts";
import type { KafkaCluster } from "./kafka-cluster.ts";
import { KafkaAnswerError } from "./kafka-errors.ts";
import type { MemberIdentity } from "./kafka-membership.ts";
import { freshProgress, type Progress, progressOf, progressText } from "./kafka-progress.ts";

/** For {@link topicOffsets}: the first record that is still there, and the place behind the last. */
export const earliest = -2;
export const latest = -1;

/** Whoever is no member; the coordinator lets them commit only while the group has none. */
export const noMember: MemberIdentity = { memberId: "", generation: -1 };

export interface CommitOptions {
  readonly cluster: KafkaCluster;
  readonly coordinator: ServerNode;
  readonly group: string;
  readonly topic: string;
  readonly identity: MemberIdentity;
  readonly progress: ReadonlyMap<number, Progress>;
}

/** Commits; gives the error code of each partition that failed. Raises `KafkaLinkError`. */
export async function commitProgress(options: CommitOptions): Promise<Map<number, number>> {
  const { cluster, coordinator, group, topic, identity, progress } = options;
  const partitions = [...progress].map(([partitionIndex, each]) => ({
    partitionIndex,
    committedOffset: BigInt(each.low),
    committedLeaderEpoch: -1,
    committedMetadata: progressText(each),
  }));
  const answer = await cluster
    .link(coordinator, "offsets")
    .ask(
      cluster.kafka.offsetCommit,
      [group, identity.generation, identity.memberId, null, [{ name: topic, partitions }]],
      cluster.times.requestMs,
    );
  const failed = new Map<number, number>();
  for (const { partitions: answers } of answer.topics) {
    for (const { partitionIndex, errorCode } of answers) if (errorCode !== 0) failed.set(partitionIndex, errorCode);
  }
  return failed;
}

export interface CommittedOptions {
  readonly cluster: KafkaCluster;
  readonly coordinator: ServerNode;
  readonly group: string;
  readonly topic: string;
  readonly partitions: readonly number[];
}

/** What was committed; partitions of which nothing ever was are missing. Raises `KafkaLinkError` and `KafkaAnswerError`. */
export async function committedProgress(options: CommittedOptions): Promise<Map<number, Progress>> {
  const { cluster, coordinator, group, topic, partitions } = options;
  const topics = [{ name: topic, partitionIndexes: partitions }];
  const answer = await cluster
    .link(coordinator, "offsets")
    .ask(cluster.kafka.offsetFetch, [[{ groupId: group, memberEpoch: -1, topics }], true], cluster.times.requestMs);
  const found = new Map<number, Progress>();
  for (const { errorCode, topics: list } of answer.groups) {
    if (errorCode !== 0) throw new KafkaAnswerError(`the offsets of ${group} cannot be read`, errorCode);
    for (const each of list.flatMap((item) => item.partitions)) {
      if (each.errorCode !== 0) throw new KafkaAnswerError(`the offsets of ${group} cannot be read`, each.errorCode);
      if (each.committedOffset >= 0n) {
        found.set(each.partitionIndex, progressOf(Number(each.committedOffset), each.metadata));
      }
    }
  }
  return found;
}

/**
 * Offset per partition: {@link earliest}, {@link latest}, or that of the first record from a time on in ms since 1970, else the end.
 * Raises `KafkaLinkError` and `KafkaAnswerError`.
 */
export async function topicOffsets(cluster: KafkaCluster, topic: string, at: number): Promise<Map<number, number>> {
  const view = await cluster.look([topic]);
  const leaders = view.leaders.get(topic) ?? [];
  const found = new Map<number, number>();
  for (const broker of new Set(leaders)) {
    const partitions = leaders.flatMap((leader, partitionIndex) =>
      leader === broker ? [{ partitionIndex, currentLeaderEpoch: -1, timestamp: BigInt(at) }] : [],
    );
    const link = await cluster.linkTo(broker, "offsets");
    const answer = await link.ask(
      cluster.kafka.listOffsets,
      [-1, 0, [{ name: topic, partitions }]],
      cluster.times.requestMs,
    );
    for (const each of answer.topics.flatMap((item) => item.partitions)) {
      if (each.errorCode !== 0) {
        cluster.forget();
        throw new KafkaAnswerError(`the offsets of ${topic} cannot be read`, each.errorCode);
      }
      found.set(each.partitionIndex, Number(each.offset));
    }
  }
  if (at < 0 || [...found.values()].every((offset) => offset >= 0)) return found;
  const ends = await topicOffsets(cluster, topic, latest);
  return new Map(
    [...found].map(([partition, offset]) => [partition, offset >= 0 ? offset : (ends.get(partition) ?? 0)]),
  );
}

/** Progress of a group that has not begun, at these offsets. */
export function startingAt(offsets: ReadonlyMap<number, number>): Map<number, Progress> {
  return new Map([...offsets].map(([partition, offset]) => [partition, freshProgress(offset)]));
}
