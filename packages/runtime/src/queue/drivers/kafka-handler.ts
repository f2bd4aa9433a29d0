/**
 * One handler's share of a topic in this process: its partitions, and what is delivered of them.
 *
 * A partition is *gained*: its commit is read, a first commit of ours says that work begins, and only then is anything delivered. It is
 * *given up*: nothing more is delivered, what began is waited for, a last commit says what is done, and only then may another get it.
 * It is *lost* without any of that when the group goes on without this process.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../kernel/log.ts";
import type { Random } from "../../kernel/random.ts";
import type { BrokerDelivery } from "../broker.ts";
import type { KafkaCluster } from "./kafka-cluster.ts";
import { KafkaCommitter } from "./kafka-committer.ts";
import { KafkaFetcher } from "./kafka-fetcher.ts";
import { GroupMembership } from "./kafka-membership.ts";
import { committedProgress, earliest, topicOffsets } from "./kafka-offsets.ts";
import { freshProgress, type Progress } from "./kafka-progress.ts";
import { KafkaSequence } from "./kafka-sequence.ts";

export interface HandlerOptions {
  readonly cluster: KafkaCluster;
  readonly group: string;
  readonly topic: string;
  readonly event: string;
  readonly handler: string;
  readonly room: number;
  readonly graceMs: number;
  readonly sessionMs: number;
  readonly heartbeatMs: number;
  readonly deliver: (delivery: BrokerDelivery) => void;
  readonly log: Logger;
  readonly random: Random;
}

const retryMs = 100;
const pollMs = 10;
const closeMs = 5_000;

export class KafkaHandler {
  private readonly options: HandlerOptions;
  private readonly membership: GroupMembership;
  private readonly fetcher: KafkaFetcher;
  private readonly committer: KafkaCommitter;
  private readonly sequences = new Map<number, KafkaSequence>();
  /** Gained partitions of which the commit is being read, and which gain that was. */
  private readonly opening = new Map<number, object>();
  private readonly closing = new AbortController();
  private isPaused = false;
  private isPumping = false;
  private lastTurn = 0;

  constructor(options: HandlerOptions) {
    this.options = options;
    const { cluster, topic, event, group, log, random, sessionMs, heartbeatMs } = options;
    this.membership = new GroupMembership({
      ...{ cluster, group, topic, sessionMs, heartbeatMs, log, random },
      onGained: (partitions) => void this.open(partitions),
      giveUp: (partitions) => this.giveUp(partitions),
      onLost: () => this.lose(),
    });
    this.committer = new KafkaCommitter({
      ...{ cluster, group, topic, log, membership: this.membership },
      sequences: () => this.sequences.values(),
      onMarked: () => this.pump(),
    });
    this.fetcher = new KafkaFetcher({
      ...{ cluster, topic, event, log, random, purpose: `fetch:${group}` },
      wanted: () => (this.isPaused ? [] : [...this.sequences.values()].filter((each) => this.wantsMore(each))),
      onFetched: () => this.pump(),
    });
  }

  pause(): void {
    this.isPaused = true;
    for (const sequence of this.sequences.values()) sequence.takeBack(false);
  }

  resume(): void {
    this.isPaused = false;
    this.pump();
  }

  /** Gives everything up without waiting for what began; within 5 s, also where Kafka does not answer. */
  async close(): Promise<void> {
    this.closing.abort();
    await Promise.race([this.membership.leave(), sleep(closeMs, undefined, { ref: false })]);
    await Promise.all([this.fetcher.close(), this.committer.close()]);
  }

  private wantsMore(sequence: KafkaSequence): boolean {
    return !sequence.isClosing && sequence.waiting < this.options.room;
  }

  /** Delivers what there is room for, by turns of the partitions, and sees to it that more comes. */
  private pump(): void {
    // A delivery that is settled at once asks for the next one from within.
    if (this.isPumping || this.closing.signal.aborted) return;
    this.isPumping = true;
    try {
      while (!this.isPaused && this.membership.isAlive() && this.deliverOne());
    } finally {
      this.isPumping = false;
    }
    for (const sequence of this.sequences.values()) if (sequence.needsMark) this.committer.commit(true);
    this.fetcher.kick();
  }

  private deliverOne(): boolean {
    const list = [...this.sequences.values()];
    if (list.reduce((sum, { unsettled }) => sum + unsettled, 0) >= this.options.room) return false;
    for (let step = 1; step <= list.length; step++) {
      const turn = (this.lastTurn + step) % list.length;
      const delivery = list[turn]?.next();
      if (delivery === undefined) continue;
      this.lastTurn = turn;
      this.options.deliver(delivery);
      return true;
    }
    return false;
  }

  /** Reads what was committed of partitions that this process got, for as long as it holds them. */
  private async open(partitions: readonly number[]): Promise<void> {
    const { topic, log, handler } = this.options;
    const gain = {};
    for (const partition of partitions) this.opening.set(partition, gain);
    while (!this.closing.signal.aborted) {
      const held = partitions.filter((partition) => this.opening.get(partition) === gain);
      if (held.length === 0) return;
      try {
        const progress = await this.readProgress(held);
        for (const partition of held) {
          if (this.opening.get(partition) !== gain) continue;
          this.opening.delete(partition);
          const from = progress.get(partition) ?? freshProgress(0);
          this.sequences.set(partition, this.sequenceOf(partition, from));
        }
        log.debug({ topic, handler, partitions: held }, "partitions were gained");
        return this.pump();
      } catch (error) {
        this.membership.forgetCoordinator();
        log.debug({ error, topic, handler }, "what was committed cannot be read yet; it is tried on");
        await sleep(retryMs, undefined, { signal: this.closing.signal }).catch(() => {});
      }
    }
  }

  /** Where nothing was committed, which `declare` does, the first message that is still there. */
  private async readProgress(partitions: readonly number[]): Promise<Map<number, Progress>> {
    const { cluster, group, topic } = this.options;
    const coordinator = await this.membership.coordinatorNode();
    const found = await committedProgress({ cluster, coordinator, group, topic, partitions });
    if (partitions.every((partition) => found.has(partition))) return found;
    const first = await topicOffsets(cluster, topic, earliest);
    for (const [partition, offset] of first) if (!found.has(partition)) found.set(partition, freshProgress(offset));
    return found;
  }

  private sequenceOf(partition: number, progress: Progress): KafkaSequence {
    const { handler, room, cluster } = this.options;
    const sequence: KafkaSequence = new KafkaSequence({
      partition,
      handler,
      progress,
      // A commit takes some ms; what is begun meanwhile must not run out.
      window: Math.max(64, 2 * room),
      isHeld: () => this.sequences.get(partition) === sequence && this.membership.isAlive(),
      clock: cluster.clock,
      onSettled: (againMs) => {
        this.committer.commit(false);
        this.pump();
        if (againMs > 0) setTimeout(() => this.pump(), againMs + 1).unref();
      },
    });
    return sequence;
  }

  /** Waits for what began, for `graceMs` at most and not at all once this process leaves. */
  private async giveUp(partitions: readonly number[]): Promise<void> {
    for (const partition of partitions) this.opening.delete(partition);
    const left = partitions.flatMap((partition) => this.sequences.get(partition) ?? []);
    for (const sequence of left) {
      sequence.isClosing = true;
      sequence.takeBack(false);
    }
    const { clock } = this.options.cluster;
    const giveUpAt = clock.monotonic() + this.options.graceMs;
    const isWaiting = () =>
      left.some((sequence) => sequence.unsettled > 0) && this.membership.isAlive() && clock.monotonic() < giveUpAt;
    while (isWaiting() && !this.closing.signal.aborted) {
      await sleep(pollMs, undefined, { signal: this.closing.signal }).catch(() => {});
    }
    for (const sequence of left) sequence.takeBack(true);
    await this.committer.commitLast(left.filter((sequence) => this.sequences.get(sequence.partition) === sequence));
    for (const sequence of left) {
      if (this.sequences.get(sequence.partition) === sequence) this.sequences.delete(sequence.partition);
    }
    this.pump();
  }

  private lose(): void {
    this.opening.clear();
    for (const sequence of this.sequences.values()) {
      sequence.isClosing = true;
      sequence.takeBack(true);
    }
    this.sequences.clear();
  }
}
