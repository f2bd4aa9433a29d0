/**
 * This process as a member of one consumer group.
 *
 * States: *joining* (from the start, after each notice that the group changes, and after each loss), *member*, *left*.
 *
 * - *joining*: JoinGroup tells what is held; whoever leads the group assigns; SyncGroup brings the outcome. What is held is worked on
 *   meanwhile. Partitions beyond the outcome are given up in their own time, and then the process joins once more, so that they go to
 *   others; see `kafka-assignment.ts`.
 * - *member*: a heartbeat a second. Its answer says when the group changes.
 * - *loss*: the coordinator does not know this member any more, or no heartbeat came through for `sessionMs`, after which others may
 *   have got the partitions. Everything is lost at once, by this process's own clock, even when it was frozen meanwhile.
 *
 * Coordinators that move, start or do not answer are looked for again, for as long as it takes.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../kernel/log.ts";
import type { Random } from "../../kernel/random.ts";
import type { ServerNode } from "../../kernel/server-address.ts";
import {
  assignmentBytes,
  assignmentOf,
  assignmentProtocol,
  assignPartitions,
  claimBytes,
  claimOf,
} from "./kafka-assignment.ts";
import type { KafkaCluster } from "./kafka-cluster.ts";
import { KafkaAnswerError, kafkaErrors } from "./kafka-errors.ts";
import type { KafkaLink } from "./kafka-link.ts";

export interface MembershipOptions {
  readonly cluster: KafkaCluster;
  readonly group: string;
  readonly topic: string;
  /** Without a heartbeat for this long a member is taken for dead. */
  readonly sessionMs: number;
  readonly heartbeatMs: number;
  readonly log: Logger;
  readonly random: Random;
  /** These are held from now on. Must not raise. */
  readonly onGained: (partitions: readonly number[]) => void;
  /** Gives these up, and resolves when that is done. Must not raise. */
  readonly giveUp: (partitions: readonly number[]) => Promise<void>;
  /** Everything that was held is lost. Must not raise. */
  readonly onLost: () => void;
}

/** Who a commit comes from. */
export interface MemberIdentity {
  readonly memberId: string;
  readonly generation: number;
}

/** What to do after an answer. */
type Next = "member" | "join";

const retryFirstMs = 50;
const retryMaxMs = 1_000;
/** Tries to join without a pause; a change of the group takes two to four. */
const joinsMax = 10;
/** How often a topic is looked at for new partitions. */
const countMs = 30_000;

export class GroupMembership {
  private readonly options: MembershipOptions;
  private readonly purpose: string;
  private readonly owned = new Set<number>();
  /** Those of them that are being given up. */
  private readonly shedding = new Set<number>();
  private readonly leaving = new AbortController();
  private readonly running: Promise<void>;
  private memberId = "";
  private generation = -1;
  private isLeader = false;
  private partitionCount = 0;
  private countedAt = 0;
  private coordinator: ServerNode | undefined;
  /** Until when this process may believe that it is a member. */
  private aliveUntil = Number.NEGATIVE_INFINITY;
  private mustJoin = true;
  private failures = 0;
  /** Since it was last a member. */
  private joins = 0;
  /** Goes up with each loss: what was begun before is of no account after it. */
  private losses = 0;

  constructor(options: MembershipOptions) {
    this.options = options;
    this.purpose = `group:${options.group}`;
    this.running = this.run();
  }

  /** Whether what is held may be worked on. */
  isAlive(): boolean {
    return this.options.cluster.clock.monotonic() < this.aliveUntil;
  }

  get identity(): MemberIdentity {
    return { memberId: this.memberId, generation: this.generation };
  }

  /** Where commits go. Raises like {@link KafkaCluster.coordinatorOf}. */
  async coordinatorNode(): Promise<ServerNode> {
    this.coordinator ??= await this.options.cluster.coordinatorOf(this.options.group);
    return this.coordinator;
  }

  /** It is another one now, or its connection is broken. */
  forgetCoordinator(): void {
    this.coordinator = undefined;
  }

  /** Gives up what is held and leaves the group. */
  async leave(): Promise<void> {
    if (this.leaving.signal.aborted) return this.running;
    await this.options.giveUp([...this.owned]);
    this.owned.clear();
    this.leaving.abort();
    await this.sayGoodbye();
    this.options.cluster.unlink(this.purpose);
    await this.running;
  }

  private async run(): Promise<void> {
    const { heartbeatMs, log, group, random } = this.options;
    const { signal } = this.leaving;
    while (!signal.aborted) {
      let waitMs = heartbeatMs;
      try {
        this.loseWhenLate();
        if (this.mustJoin) await this.join();
        else await this.beat();
        this.failures = 0;
        this.joins = this.mustJoin ? this.joins + 1 : 0;
        if (this.mustJoin && this.joins < joinsMax) waitMs = 0;
      } catch (error) {
        if (signal.aborted) break;
        this.coordinator = undefined;
        const level = this.failures === 5 ? "warn" : "debug";
        log[level]({ error, group }, "the coordinator of a consumer group cannot be asked; it is tried on");
        waitMs = Math.min(retryMaxMs, retryFirstMs * 2 ** Math.min(this.failures++, 10)) * (0.5 + random.next() / 2);
      }
      if (waitMs > 0) await sleep(waitMs, undefined, { signal }).catch(() => {});
    }
  }

  private async link(): Promise<KafkaLink> {
    return this.options.cluster.link(await this.coordinatorNode(), this.purpose);
  }

  private async join(): Promise<void> {
    const { cluster, group, topic, sessionMs } = this.options;
    const { kafka } = cluster;
    const link = await this.link();
    const claim = { owned: [...this.owned], generation: this.generation };
    const protocols = [{ name: assignmentProtocol, metadata: claimBytes(topic, claim) }];
    const askedAt = cluster.clock.monotonic();
    // The others hear of it by their heartbeats; whoever has not joined within a session is taken for dead.
    const answer = await this.whileBeating(
      link.ask(
        kafka.joinGroup,
        [group, sessionMs, sessionMs, this.memberId, null, "consumer", protocols, null],
        sessionMs + cluster.times.requestMs,
      ),
    );
    if (answer.errorCode === kafkaErrors.memberIdRequired && answer.memberId !== null) {
      this.memberId = answer.memberId;
      return;
    }
    if (this.judge("join", answer.errorCode) === "join") return;
    this.memberId = answer.memberId ?? this.memberId;
    this.extend(askedAt);
    this.generation = answer.generationId;
    this.isLeader = answer.leader === this.memberId;
    const assignments = this.isLeader ? await this.assign(answer.members) : [];
    const syncedAt = cluster.clock.monotonic();
    const outcome = await link.ask(
      kafka.syncGroup,
      [group, this.generation, this.memberId, null, "consumer", assignmentProtocol, assignments],
      sessionMs + cluster.times.requestMs,
    );
    if (this.judge("sync", outcome.errorCode) === "join") return;
    this.extend(syncedAt);
    this.mustJoin = false;
    this.take(assignmentOf(outcome.assignment));
  }

  /**
   * A JoinGroup waits for the other members, longer than a session in the worst case. Heartbeats on a connection of their own say
   * meanwhile that this member still counts as one; when they fail, the waiting is over too.
   */
  private async whileBeating<Answer>(joining: Promise<Answer>): Promise<Answer> {
    const { cluster, group, heartbeatMs } = this.options;
    const { memberId, generation } = this;
    if (generation < 0) return joining;
    const beat = async () => {
      const askedAt = cluster.clock.monotonic();
      const link = cluster.link(await this.coordinatorNode(), `${this.purpose}:beat`);
      const args = [group, generation, memberId, null] as const;
      const { errorCode } = await link.ask(cluster.kafka.heartbeat, [...args], cluster.times.requestMs);
      if (errorCode === 0 || errorCode === kafkaErrors.rebalanceInProgress) this.extend(askedAt);
    };
    const timer = setInterval(() => void beat().catch(() => cluster.unlink(this.purpose)), heartbeatMs);
    try {
      return await joining;
    } finally {
      clearInterval(timer);
      cluster.unlink(`${this.purpose}:beat`);
    }
  }

  private async assign(members: readonly { readonly memberId: string; readonly metadata: Uint8Array | null }[]) {
    const { topic } = this.options;
    this.partitionCount = await this.countPartitions();
    const claims = members.map(({ memberId, metadata }) => claimOf(memberId, metadata));
    return [...assignPartitions(claims, this.partitionCount)].map(([memberId, partitions]) => ({
      memberId,
      assignment: assignmentBytes(topic, partitions),
    }));
  }

  private take(assigned: readonly number[]): void {
    const gained = assigned.filter((partition) => !this.owned.has(partition));
    const isSurplus = (partition: number) => !assigned.includes(partition) && !this.shedding.has(partition);
    const surplus = [...this.owned].filter(isSurplus);
    for (const partition of gained) this.owned.add(partition);
    if (gained.length > 0) this.options.onGained(gained);
    if (surplus.length > 0) void this.shed(surplus);
  }

  /** Partitions on their way out are held until that is done, also when the group changes once more meanwhile. */
  private async shed(partitions: readonly number[]): Promise<void> {
    const { losses } = this;
    for (const partition of partitions) this.shedding.add(partition);
    await this.options.giveUp(partitions);
    if (this.leaving.signal.aborted || losses !== this.losses) return;
    for (const partition of partitions) {
      this.shedding.delete(partition);
      this.owned.delete(partition);
    }
    this.mustJoin = true;
    this.options.log.debug({ group: this.options.group, partitions }, "partitions were given up");
  }

  private async beat(): Promise<void> {
    const { cluster, group } = this.options;
    const askedAt = cluster.clock.monotonic();
    const link = await this.link();
    const { errorCode } = await link.ask(
      cluster.kafka.heartbeat,
      [group, this.generation, this.memberId, null],
      cluster.times.requestMs,
    );
    if (this.judge("heartbeat", errorCode) === "join") return;
    this.extend(askedAt);
    if (!this.isLeader || askedAt < this.countedAt + countMs) return;
    if ((await this.countPartitions()) !== this.partitionCount) this.mustJoin = true;
  }

  private async countPartitions(): Promise<number> {
    const { cluster, topic } = this.options;
    this.countedAt = cluster.clock.monotonic();
    const { leaders } = await cluster.look([topic]);
    return leaders.get(topic)?.length ?? 0;
  }

  /** Raises for what only waiting or an operator heals. */
  private judge(what: string, code: number): Next {
    if (code === 0) return "member";
    this.mustJoin = true;
    if (code === kafkaErrors.rebalanceInProgress) return "join";
    if (code === kafkaErrors.unknownMember || code === kafkaErrors.illegalGeneration) {
      this.lose();
      this.generation = -1;
      if (code === kafkaErrors.unknownMember) this.memberId = "";
      return "join";
    }
    throw new KafkaAnswerError(`${what} of the group ${this.options.group}`, code);
  }

  /** What was lost by this process's own clock stays lost, even if nobody else has noticed. */
  private extend(askedAt: number): void {
    this.loseWhenLate();
    this.aliveUntil = Math.max(this.aliveUntil, askedAt + this.options.sessionMs);
  }

  private loseWhenLate(): void {
    if (this.owned.size === 0 || this.isAlive()) return;
    this.lose();
    this.mustJoin = true;
  }

  private lose(): void {
    this.aliveUntil = Number.NEGATIVE_INFINITY;
    if (this.owned.size === 0) return;
    this.losses++;
    this.owned.clear();
    this.shedding.clear();
    this.options.log.warn({ group: this.options.group }, "all partitions were lost; they come back after joining anew");
    this.options.onLost();
  }

  private async sayGoodbye(): Promise<void> {
    const { cluster, group, log } = this.options;
    if (this.memberId === "") return;
    const members = [{ memberId: this.memberId }];
    try {
      // Not the link on which a JoinGroup may be waiting.
      const link = cluster.link(await this.coordinatorNode(), `${this.purpose}:leave`);
      await link.ask(cluster.kafka.leaveGroup, [group, members], Math.min(2_000, cluster.times.requestMs));
    } catch (error) {
      log.debug(
        { error, group },
        "the group could not be left; the others get the partitions when the session is over",
      );
    } finally {
      cluster.unlink(`${this.purpose}:leave`);
    }
  }
}
