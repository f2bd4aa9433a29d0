/**
 * Fetches records of one topic for one handler.
 *
 * A fetch waits at the broker until there is something, and nothing can be added to it meanwhile. So there may be two at a time for each
 * broker, on connections of their own: while one waits long with partitions that are quiet, the other brings what busy ones have.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../kernel/log.ts";
import type { Random } from "../../kernel/random.ts";
import type { KafkaCluster } from "./kafka-cluster.ts";
import { KafkaAnswerError, kafkaErrors } from "./kafka-errors.ts";
import type { FetchAnswer, KafkaBatch } from "./kafka-load.ts";
import { earliest, latest, topicOffsets } from "./kafka-offsets.ts";
import { messageOf } from "./kafka-record.ts";
import type { FetchedRecord, KafkaSequence } from "./kafka-sequence.ts";

export interface FetcherOptions {
  readonly cluster: KafkaCluster;
  readonly topic: string;
  readonly event: string;
  /** Tells connections of different handlers apart. */
  readonly purpose: string;
  readonly log: Logger;
  readonly random: Random;
  /** Those from which more is wanted now. */
  readonly wanted: () => readonly KafkaSequence[];
  /** Something was added. */
  readonly onFetched: () => void;
}

/** How long the first of them waits, and the second. */
const waitsMs = [500, 20] as const;
const bytesMax = 4 * 1_024 * 1_024;
/** A batch that is larger comes whole all the same, so that nothing can get stuck. */
const partitionBytesMax = 256 * 1_024;
const retryMs = { first: 50, max: 1_000 };
/** Attribute of a batch that holds marks of transactions, no messages (KIP-98). */
const controlBatch = 0x20;
const readUncommitted = 0;

type Partition = FetchAnswer["responses"][number]["partitions"][number];

export class KafkaFetcher {
  private readonly options: FetcherOptions;
  private readonly busy = new Set<KafkaSequence>();
  private readonly used = new Map<string, Promise<void>>();
  private readonly closing = new AbortController();
  private failures = 0;
  private isLooking = false;
  private mustLook = false;

  constructor(options: FetcherOptions) {
    this.options = options;
  }

  /** Starts what can be started; to be called whenever more may be wanted. */
  kick(): void {
    this.mustLook = true;
    if (this.isLooking) return;
    this.isLooking = true;
    void this.look();
  }

  async close(): Promise<void> {
    this.closing.abort();
    this.options.cluster.unlink(this.options.purpose);
    waitsMs.forEach((_, slot) => {
      this.options.cluster.unlink(this.slotName(slot));
    });
    await Promise.all(this.used.values());
  }

  private async look(): Promise<void> {
    while (this.mustLook && !this.closing.signal.aborted) {
      this.mustLook = false;
      await this.start().catch((error) => this.recover(error));
    }
    this.isLooking = false;
  }

  private slotName(slot: number): string {
    return `${this.options.purpose}:${slot}`;
  }

  private async start(): Promise<void> {
    const { cluster, topic, wanted } = this.options;
    if (wanted().every((sequence) => this.busy.has(sequence))) return;
    const leaders = (await cluster.look([topic])).leaders.get(topic) ?? [];
    const byLeader = new Map<number, KafkaSequence[]>();
    for (const sequence of wanted()) {
      const leader = leaders[sequence.partition] ?? -1;
      if (this.busy.has(sequence)) continue;
      if (leader === -1) {
        cluster.forget();
        throw new KafkaAnswerError(`partition ${sequence.partition} of ${topic} has no leader`, -1);
      }
      byLeader.set(leader, [...(byLeader.get(leader) ?? []), sequence]);
    }
    for (const [leader, sequences] of byLeader) {
      const slot = waitsMs.findIndex((_, index) => !this.used.has(`${leader}:${index}`));
      if (slot === -1) continue;
      for (const sequence of sequences) this.busy.add(sequence);
      const name = `${leader}:${slot}`;
      const fetching = this.fetch(leader, slot, sequences)
        .catch((error) => this.recover(error))
        .finally(() => {
          for (const sequence of sequences) this.busy.delete(sequence);
          this.used.delete(name);
          this.options.onFetched();
        });
      this.used.set(name, fetching);
    }
  }

  private async fetch(leader: number, slot: number, sequences: readonly KafkaSequence[]): Promise<void> {
    const { cluster, topic } = this.options;
    const link = await cluster.linkTo(leader, this.slotName(slot));
    const waitMs = waitsMs[slot] ?? 0;
    const partitions = sequences.map(({ partition, position }) => ({
      partition,
      currentLeaderEpoch: -1,
      fetchOffset: BigInt(position),
      lastFetchedEpoch: -1,
      partitionMaxBytes: partitionBytesMax,
    }));
    const answer = await link.ask(
      cluster.kafka.fetch,
      [waitMs, 1, bytesMax, readUncommitted, 0, -1, [{ topicId: topic, partitions }], [], ""],
      waitMs + cluster.times.requestMs,
    );
    if (answer.errorCode !== 0) throw new KafkaAnswerError(`${topic} cannot be fetched`, answer.errorCode);
    let problem: unknown;
    for (const partition of answer.responses.flatMap((response) => response.partitions)) {
      const sequence = sequences.find((each) => each.partition === partition.partitionIndex);
      if (sequence === undefined) continue;
      if (partition.errorCode === kafkaErrors.offsetOutOfRange) await this.moveInto(sequence);
      else if (partition.errorCode !== 0)
        problem = new KafkaAnswerError(`${topic} cannot be fetched`, partition.errorCode);
      else this.take(sequence, partition);
    }
    if (problem !== undefined) throw problem;
    this.failures = 0;
  }

  private take(sequence: KafkaSequence, { records = [] }: Partition): void {
    const { topic, event, log } = this.options;
    for (const batch of records) {
      const fetched = recordsOf(batch, event, (offset, error) =>
        log.error(
          { error, topic, partition: sequence.partition, offset },
          "a record is none of ours and was passed over",
        ),
      );
      sequence.add(fetched, Number(batch.firstOffset) + batch.lastOffsetDelta + 1);
    }
  }

  /** Retention has deleted what comes next, or a leader that was elected uncleanly never had it. */
  private async moveInto(sequence: KafkaSequence): Promise<void> {
    const { cluster, topic, log } = this.options;
    const [first, end] = await Promise.all([
      topicOffsets(cluster, topic, earliest),
      topicOffsets(cluster, topic, latest),
    ]);
    const { partition, position } = sequence;
    const to = Math.min(Math.max(position, first.get(partition) ?? 0), end.get(partition) ?? 0);
    log.error(
      { topic, partition, from: position, to },
      "messages were deleted before they were handled: retention is shorter than the handler was away",
    );
    sequence.position = to;
  }

  private async recover(error: unknown): Promise<void> {
    const { cluster, log, random, topic } = this.options;
    if (this.closing.signal.aborted) return;
    cluster.forget();
    log[this.failures === 5 ? "warn" : "debug"]({ error, topic }, "messages cannot be fetched; it is tried on");
    const ms = Math.min(retryMs.max, retryMs.first * 2 ** Math.min(this.failures++, 10)) * (0.5 + random.next() / 2);
    await sleep(ms, undefined, { signal: this.closing.signal }).catch(() => {});
    this.options.onFetched();
  }
}

function recordsOf(
  batch: KafkaBatch,
  event: string,
  onForeign: (offset: number, error: unknown) => void,
): FetchedRecord[] {
  if ((batch.attributes & controlBatch) !== 0) return [];
  const first = Number(batch.firstOffset);
  return batch.records.map((record) => {
    const offset = first + record.offsetDelta;
    try {
      return { offset, message: messageOf(event, record) };
    } catch (error) {
      onForeign(offset, error);
      return { offset, message: undefined };
    }
  });
}
