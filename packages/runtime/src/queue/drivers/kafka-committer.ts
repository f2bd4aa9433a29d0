/**
 * Commits the progress of one handler's partitions: one request at a time with all that has changed, 50 ms after the last one, or at
 * once when deliveries wait for it. What fails is tried again for as long as the partition is held.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../kernel/log.ts";
import type { KafkaCluster } from "./kafka-cluster.ts";
import type { GroupMembership } from "./kafka-membership.ts";
import { commitProgress } from "./kafka-offsets.ts";
import { type Progress, progressText } from "./kafka-progress.ts";
import type { KafkaSequence } from "./kafka-sequence.ts";

export interface CommitterOptions {
  readonly cluster: KafkaCluster;
  readonly group: string;
  readonly topic: string;
  readonly membership: GroupMembership;
  readonly log: Logger;
  /** The partitions that are held and worked on. */
  readonly sequences: () => Iterable<KafkaSequence>;
  /** Marks were raised: deliveries that waited for it may go on. */
  readonly onMarked: () => void;
}

const everyMs = 50;
const retryMs = 100;
/** How long a last commit is tried; without it the next holder takes more messages for begun than were. */
const lastMs = 5_000;

export class KafkaCommitter {
  private readonly options: CommitterOptions;
  /** What was last committed of each. */
  private readonly texts = new WeakMap<KafkaSequence, string>();
  private running: Promise<void> | undefined;
  private sending: Promise<unknown> | undefined;
  private isWanted = false;
  private isUrgent = false;
  private isClosed = false;
  private wake: (() => void) | undefined;

  constructor(options: CommitterOptions) {
    this.options = options;
  }

  /** Commits what has changed, soon; `isUrgent`: now. */
  commit(isUrgent: boolean): void {
    if (this.isClosed) return;
    this.isWanted = true;
    if (isUrgent) {
      this.isUrgent = true;
      this.wake?.();
    }
    this.running ??= this.run().finally(() => {
      this.running = undefined;
    });
  }

  /** The last commits of partitions that are given up; false when they did not come through. */
  async commitLast(sequences: readonly KafkaSequence[]): Promise<boolean> {
    const { clock } = this.options.cluster;
    const giveUpAt = clock.monotonic() + lastMs;
    // One that is under way may be tried on another connection, and must not come after it.
    await this.sending;
    let left = sequences;
    while (left.length > 0 && this.options.membership.isAlive() && clock.monotonic() < giveUpAt) {
      const failed = await this.send(left, (sequence) => sequence.lastProgress());
      left = left.filter((sequence) => failed.has(sequence.partition));
      if (left.length > 0) await sleep(retryMs);
    }
    return left.length === 0;
  }

  async close(): Promise<void> {
    this.isClosed = true;
    this.wake?.();
    await this.running;
  }

  private async run(): Promise<void> {
    while (this.isWanted && !this.isClosed) {
      if (!this.isUrgent) await this.rest(everyMs);
      this.isWanted = false;
      this.isUrgent = false;
      const changed = [...this.options.sequences()].filter(
        (sequence) => !sequence.isClosing && this.hasChanged(sequence),
      );
      if (changed.length === 0) continue;
      const sending = this.send(changed, (sequence) => sequence.progress());
      this.sending = sending;
      const failed = await sending;
      if (failed.size > 0) {
        this.isWanted = true;
        await this.rest(retryMs);
      } else this.options.onMarked();
    }
  }

  private hasChanged(sequence: KafkaSequence): boolean {
    return sequence.needsMark || this.texts.get(sequence) !== textOf(sequence.progress());
  }

  /** Partitions that failed, with their error codes. */
  private async send(
    sequences: readonly KafkaSequence[],
    progressOf: (sequence: KafkaSequence) => Progress,
  ): Promise<ReadonlyMap<number, number>> {
    const { cluster, group, topic, membership, log } = this.options;
    const progress = new Map(sequences.map((sequence) => [sequence.partition, progressOf(sequence)]));
    try {
      const coordinator = await membership.coordinatorNode();
      const { identity } = membership;
      const failed = await commitProgress({ cluster, coordinator, group, topic, identity, progress });
      for (const sequence of sequences) {
        const sent = progress.get(sequence.partition);
        if (sent === undefined || failed.has(sequence.partition)) continue;
        this.texts.set(sequence, textOf(sent));
        sequence.marked(sent.begun);
      }
      if (failed.size > 0) log.debug({ group, failed: [...failed] }, "offsets were not taken; it is tried on");
      return failed;
    } catch (error) {
      membership.forgetCoordinator();
      log.debug({ error, group }, "offsets cannot be committed; it is tried on");
      return new Map(sequences.map(({ partition }) => [partition, -1]));
    }
  }

  private rest(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(done, ms);
      function done() {
        clearTimeout(timer);
        resolve();
      }
      this.wake = done;
    });
  }
}

function textOf(progress: Progress): string {
  return `${progress.low} ${progressText(progress)}`;
}
