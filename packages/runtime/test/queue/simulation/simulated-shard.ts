/**
 * A shard in virtual time: job table, inbox and transactions, as the functions of `job-tables.ts` and `outbox-tables.ts` make them.
 *
 * It can refuse calls, or leave them without an answer for a while; answers get lost after the work was done; a transaction commits
 * late, and ends with its machine.
 */
import type { Random } from "../../../src/kernel/random.ts";
import type { BrokerMessage } from "../../../src/queue/broker.ts";
import type { ClaimedJob, JobStore, SettledJob, Wanted } from "../../../src/queue/job-store.ts";
import type { ParkedJob } from "../../../src/queue/parking.ts";
import type { Machine, SimulatedTime } from "./simulated-time.ts";

interface Row {
  sequence: number;
  readonly message: BrokerMessage;
  readonly handler: string;
  runAt: number;
  attempts: number;
  workerId: string | undefined;
  lock: Transaction | undefined;
}

export class Transaction {
  readonly shard: SimulatedShard;
  readonly machine: Machine;
  state: "open" | "committed" | "rolled back" = "open";
  readonly onEnd: ((isCommitted: boolean) => void)[] = [];
  readonly ended: Promise<void>;

  constructor(shard: SimulatedShard, machine: Machine) {
    this.shard = shard;
    this.machine = machine;
    this.ended = new Promise((resolve) => this.onEnd.push(() => resolve()));
  }

  end(isCommitted: boolean): void {
    if (this.state !== "open") {
      if (isCommitted) throw new Error("the transaction was rolled back");
      return;
    }
    this.state = isCommitted ? "committed" : "rolled back";
    for (const each of this.onEnd) each(isCommitted);
  }
}

export class SimulatedShard {
  readonly number: number;
  state: "up" | "refusing" | "silent" = "up";
  /** Chance that an answer is lost, and that a commit is late. */
  troubleRate = 0;
  rows: Row[] = [];
  readonly dead: { readonly message: BrokerMessage; readonly handler: string }[] = [];
  /** Every message and handler that was a dead letter once. */
  readonly everDead = new Set<string>();
  /** Calls that it refused, by machine, kind and second. */
  readonly refused = new Map<string, number>();
  private readonly inbox = new Map<string, Transaction | "noted">();
  private readonly open = new Set<Transaction>();
  private readonly workers = new Map<string, number>();
  private lastSequence = 0;
  private readonly time: SimulatedTime;
  private readonly random: Random;

  constructor(number: number, time: SimulatedTime, random: Random) {
    this.number = number;
    this.time = time;
    this.random = random;
  }

  fail(state: "refusing" | "silent"): void {
    this.state = state;
    if (state === "refusing") for (const tx of [...this.open]) tx.end(false);
  }

  /** Its connections end, some time later. */
  died(machine: Machine): void {
    for (const tx of this.open)
      if (tx.machine === machine) this.time.after(800 * this.random.next(), () => tx.end(false));
  }

  /** A call of `machine` and its answer; the work is done also when the machine freezes or dies meanwhile. */
  ask<R>(machine: Machine, kind: string, work: () => R | Promise<R>): Promise<R> {
    const { time, random } = this;
    // Of the table's claims no answer is lost: what that costs is the job runner's affair at every rung.
    const isSure = kind === "claim";
    return new Promise<R>((resolve, reject) => {
      const attempt = async () => work();
      const fail = (ms: number) => time.after(ms, () => reject(new Error("connection lost")), machine);
      if (this.state !== "up") {
        const second = `${machine.name} ${kind} ${Math.floor(time.now() / 1_000)}`;
        this.refused.set(second, (this.refused.get(second) ?? 0) + 1);
        if (this.state === "silent" && !isSure && random.next() < 0.2)
          time.after(1_500, () => attempt().catch(() => {}));
        return void fail(this.state === "silent" ? 1_000 : 1);
      }
      const slow = random.next() < this.troubleRate ? 300 : 3;
      time.after(slow * random.next(), () => {
        attempt().then(
          (result) => {
            if (!isSure && random.next() < this.troubleRate) fail(100 * random.next());
            else time.after(slow * random.next(), () => resolve(result), machine);
          },
          (error: unknown) => time.after(1, () => reject(error), machine),
        );
      });
    });
  }

  async transaction<R>(machine: Machine, work: (tx: Transaction) => Promise<R>): Promise<R> {
    const tx = await this.ask(machine, "begin", () => new Transaction(this, machine));
    this.open.add(tx);
    tx.onEnd.push(() => this.open.delete(tx));
    try {
      const result = await work(tx);
      const lateMs = this.random.next() < this.troubleRate ? 2_500 * this.random.next() : 0;
      await this.ask(machine, "commit", async () => {
        if (lateMs > 0) await new Promise<void>((go) => this.time.after(lateMs, go));
        tx.end(true);
      });
      return result;
    } catch (error) {
      this.time.after(1_000 * this.random.next(), () => tx.end(false));
      throw error;
    }
  }

  /** A row of the inbox; waits for others that are about to write the same one. */
  async note(tx: Transaction, name: string): Promise<"first" | "repeated"> {
    for (;;) {
      if (tx.state !== "open") throw new Error("the transaction was rolled back");
      const held = this.inbox.get(name);
      if (held === "noted" || held === tx) return "repeated";
      if (held === undefined) break;
      await held.ended;
    }
    this.inbox.set(name, tx);
    tx.onEnd.push((isCommitted) => (isCommitted ? this.inbox.set(name, "noted") : this.inbox.delete(name)));
    return "first";
  }

  has(message: BrokerMessage, handler: string): boolean {
    return [...this.rows, ...this.dead].some((row) => row.handler === handler && row.message.id === message.id);
  }

  park(jobs: readonly ParkedJob[]): void {
    for (const { message, handler, attempts, delayMs, isDead } of jobs) {
      if (isDead) this.bury(message, handler);
      else if (!this.rows.some((row) => row.handler === handler && row.message.id === message.id)) {
        this.insert(message, handler, { attempts, delayMs });
      }
    }
  }

  blocked(jobs: readonly { readonly handler: string; readonly key: string }[]): boolean[] {
    return jobs.map(({ handler, key }) => this.rows.some((row) => row.handler === handler && row.message.key === key));
  }

  /** As an operator does. */
  publishDeadAgain(): void {
    for (const { message, handler } of this.dead.splice(0))
      this.park([{ message, handler, attempts: 0, delayMs: 0, error: null, isDead: false }]);
  }

  /** The job table as a store, as `machine` sees it. */
  storeFor(machine: Machine, onDone: (message: BrokerMessage, handler: string) => void): JobStore {
    const ask = <R>(kind: string, work: () => R | Promise<R>) => this.ask(machine, kind, work);
    return {
      name: `shard ${this.number}`,
      claim: (workerId, wanted) => ask("claim", () => this.claim(workerId, wanted)),
      settle: (workerId, settled) => ask("settle", () => this.settle(workerId, settled, onDone)),
      heartbeat: (workerId, timeoutMs) => ask("heartbeat", () => this.heartbeat(workerId, timeoutMs)),
      leave: (workerId) => ask("leave", () => void this.workers.delete(workerId)),
      once: (tx, workerId, job, step) => {
        const { shard } = tx as Transaction;
        return shard.ask(machine, "once", async () => {
          if (shard === this && !(await this.hold(tx as Transaction, workerId, job))) return "lost";
          return shard.note(tx as Transaction, `${job.jobId} ${job.handler} ${step}`);
        });
      },
      oldestPublished: async () => undefined,
      forgetSteps: async () => 0,
    };
  }

  private insert(message: BrokerMessage, handler: string, how: { attempts: number; delayMs: number }): void {
    this.rows.push({
      ...{ message, handler, sequence: ++this.lastSequence, attempts: how.attempts },
      ...{ runAt: this.time.now() + how.delayMs, workerId: undefined, lock: undefined },
    });
  }

  private bury(message: BrokerMessage, handler: string): void {
    this.everDead.add(`${message.id} ${handler}`);
    if (!this.dead.some((each) => each.handler === handler && each.message.id === message.id))
      this.dead.push({ message, handler });
  }

  private claim(workerId: string, wanted: readonly Wanted[]): ClaimedJob[] {
    const now = this.time.now();
    // So that others see it die, also where its first sign of life was lost.
    if (!this.workers.has(workerId)) this.workers.set(workerId, now);
    return wanted.flatMap(({ handler, slots }) => {
      const keys = new Set<string>();
      const first = this.rows.filter((row) => {
        const { key } = row.message;
        if (row.handler !== handler || (key !== null && keys.has(key))) return false;
        if (key !== null) keys.add(key);
        return row.runAt <= now && row.workerId === undefined && row.lock === undefined;
      });
      return first.slice(0, slots).map((row) => {
        row.workerId = workerId;
        row.attempts++;
        const { message, sequence, attempts: attempt } = row;
        const { key, payload, version, publishedAt } = message;
        return { sequence, jobId: message.id, handler, key, payload, version, attempt, publishedAt, waitedMs: 0 };
      });
    });
  }

  private settle(
    workerId: string,
    settled: readonly SettledJob[],
    onDone: (message: BrokerMessage, handler: string) => void,
  ): { freed: number; busy: SettledJob[] } {
    let freed = 0;
    const busy = settled.filter((each) => {
      const row = this.rows.find(({ sequence }) => sequence === each.job.sequence);
      if (row?.workerId !== workerId) return false;
      if (row.lock !== undefined) return true;
      const { outcome } = each;
      row.workerId = undefined;
      if (outcome.kind === "done" || outcome.kind === "dead") {
        this.rows.splice(this.rows.indexOf(row), 1);
        freed++;
        if (outcome.kind === "dead") this.bury(row.message, row.handler);
        else onDone(row.message, row.handler);
      } else if (outcome.kind === "retry") row.runAt = this.time.now() + outcome.delayMs;
      else row.attempts--;
      return false;
    });
    return { freed, busy };
  }

  private heartbeat(workerId: string, timeoutMs: number): number {
    const now = this.time.now();
    this.workers.set(workerId, now);
    let freed = 0;
    for (const [worker, seenAt] of this.workers) {
      if (now - seenAt <= timeoutMs) continue;
      const held = this.rows.filter((row) => row.workerId === worker);
      for (const row of held) {
        if (row.lock !== undefined) continue;
        row.workerId = undefined;
        freed++;
      }
      if (held.every((row) => row.lock === undefined)) this.workers.delete(worker);
    }
    return freed;
  }

  /** Locks the job's row until the transaction ends; false when it is somebody else's. */
  private async hold(tx: Transaction, workerId: string, job: ClaimedJob): Promise<boolean> {
    for (;;) {
      const row = this.rows.find(({ sequence }) => sequence === job.sequence);
      if (tx.state !== "open") throw new Error("the transaction was rolled back");
      if (row?.lock !== undefined && row.lock !== tx) {
        await row.lock.ended;
        continue;
      }
      if (row?.workerId !== workerId || row.attempts !== job.attempt) return false;
      row.lock = tx;
      tx.onEnd.push(() => {
        row.lock = undefined;
      });
      return true;
    }
  }
}
