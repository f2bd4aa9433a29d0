/**
 * One history of a queue with a broker, in virtual time: the real store, runner and tries in two or three processes, around a simulated
 * broker and simulated shards, with simulated handlers. A seed makes one history.
 *
 * For nine seconds messages are published and everything fails that can; then nothing does any more, and all must come to an end. Left
 * out is what the design excepts: jobs that never saw the broker, and dead letters published again, keep no order with the others.
 */
import { silentLogger } from "../../../src/kernel/log.ts";
import { type Random, seededRandom } from "../../../src/kernel/random.ts";
import type { BrokerMessage } from "../../../src/queue/broker.ts";
import type { BrokerStore, BrokerStoreOptions } from "../../../src/queue/broker-store.ts";
import type { Event } from "../../../src/queue/event.ts";
import { type Delivery, handle, type NamedHandler } from "../../../src/queue/handler.ts";
import { type JobRunner, startJobRunner } from "../../../src/queue/job-runner.ts";
import type { JobStore } from "../../../src/queue/job-store.ts";
import { EffectLog, insideOf, sizesOf, stepsOf } from "./queue-checkers.ts";
import { type Connection, SimulatedBroker } from "./simulated-broker.ts";
import { SimulatedShard } from "./simulated-shard.ts";
import { type Machine, SimulatedTime } from "./simulated-time.ts";

export type MakeStore = (options: BrokerStoreOptions) => BrokerStore;

export interface History {
  readonly violations: readonly string[];
  readonly messages: number;
  readonly tries: number;
  readonly parked: number;
  readonly deaths: number;
}

interface Process {
  readonly machine: Machine;
  readonly store: BrokerStore;
  readonly runner: JobRunner;
  readonly connection: Connection;
  readonly running: Map<string, number>;
  isStopping: boolean;
}

const troubleMs = 9_000;
/** Processes that messages kill one after the other take their time. */
const endMs = 400_000;
/** Refused calls of one process to one shard in a second. */
const refusedMax = { blocked: 8, park: 6 };
const event: Event<number> = {
  ...{ name: "simulated.happened", version: 1, sensitive: [] },
  parse: (stored) => stored as number,
  check: (payload) => payload,
};

/** Runs the history of that seed over stores that `makeStore` makes. */
export async function simulate(seed: number, makeStore: MakeStore): Promise<History> {
  const world = new World(seed, makeStore);
  const uninstall = world.time.install();
  try {
    await world.run();
  } finally {
    uninstall();
  }
  const { violations, messages, tries, parked, deaths } = world;
  return { violations: [...violations], messages: messages.length, tries, parked: parked.size, deaths };
}

class World {
  readonly time = new SimulatedTime();
  readonly violations = new Set<string>();
  readonly messages: BrokerMessage[] = [];
  readonly parked = new Set<string>();
  tries = 0;
  deaths = 0;
  private readonly random: Random;
  private readonly makeStore: MakeStore;
  private readonly shards: readonly SimulatedShard[];
  private readonly broker: SimulatedBroker;
  private readonly handlers: NamedHandler<Process>[];
  private readonly processes = new Set<Process>();
  private readonly effects = new EffectLog();
  private readonly deathsOf = new Map<string, number>();
  private readonly killers = new Set<number>();
  private readonly poison = new Set<number>();
  private readonly rates: { fail: number; hang: number; fault: number; repeat: number };
  private readonly attemptsMax: number;
  private readonly keys: number;
  private readonly room: number;
  private isCalm = false;
  private isRepaired = false;
  private machines = 0;

  constructor(seed: number, makeStore: MakeStore) {
    this.random = seededRandom(seed);
    this.makeStore = makeStore;
    const { random, time } = this;
    const either = (...values: readonly number[]) => values[Math.floor(random.next() * values.length)] as number;
    this.rates = {
      fail: either(0, 0.1, 0.4),
      hang: either(0, 0, 0.1),
      fault: either(0, 4, 10),
      repeat: either(0, 0.1),
    };
    this.keys = either(1, 2, 4);
    this.room = either(4, 8, 30);
    const hasKillers = random.next() < 0.15;
    this.attemptsMax = hasKillers ? 4 : 14;
    this.shards = [0, 1].map((number) => new SimulatedShard(number, time, random));
    const trouble = either(0, 0.02, 0.1);
    for (const shard of this.shards) shard.troubleRate = trouble;
    this.handlers = ["one", "two", "plain"]
      .filter(() => random.next() < 0.6)
      .map((name) => this.handler(name, either(1, 2, 4)));
    if (this.handlers.length === 0) this.handlers = [this.handler("one", 2)];
    this.broker = new SimulatedBroker({
      ...{ time, random, isRabbit: random.next() < 0.5 },
      handlers: this.handlers.map(({ name }) => name),
      onAck: (message, handler) => {
        const isKept = this.effects.isDone(message, handler) || this.shardOf(message).has(message, handler);
        if (!isKept)
          this.violate(`message ${message.id} was acknowledged and neither done nor parked for "${handler}"`);
      },
    });
    const count = 10 + Math.floor(30 * random.next());
    const burst = random.next() < 0.5;
    for (let number = 0; number < count; number++) {
      if (hasKillers && random.next() < 0.1) this.killers.add(number);
      if (random.next() < 0.03) this.poison.add(number);
      time.after(burst ? 500 + 10 * number : 150 * number, () => this.publish(number));
    }
  }

  async run(): Promise<void> {
    const { time, random, rates } = this;
    const processes = 1 + Math.floor(3 * random.next());
    for (let index = 0; index < processes; index++) time.after(0, () => this.start());
    const faults = Math.floor(rates.fault * random.next());
    for (let index = 0; index < faults; index++)
      time.after(300 + (troubleMs - 1_000) * random.next(), () => this.fault());
    await time.run(troubleMs);
    this.isCalm = true;
    for (const shard of this.shards) Object.assign(shard, { state: "up", troubleRate: 0 });
    const isOver = () =>
      this.broker.sequences.every(({ entries }) => entries.length === 0) &&
      this.shards.every(({ rows }) => rows.length === 0);
    await time.run(endMs, isOver);
    this.isRepaired = true;
    for (const shard of this.shards) shard.publishDeadAgain();
    await time.run(time.now() + endMs, isOver);
    // What thaws now has its last chance to do something twice.
    await time.run(2_000 + Math.max(time.now(), ...[...this.processes].map(({ machine }) => machine.frozenUntil)));
    this.checkEnd();
    for (const process of this.processes) this.stop(process);
    await time.run(time.now() + 20_000, () => this.processes.size === 0);
    for (const { machine } of this.processes) this.violate(`${machine.name} did not stop`);
  }

  private violate(what: string): void {
    this.violations.add(what);
  }

  private shardOf(message: BrokerMessage): SimulatedShard {
    return this.shards[message.shard] as SimulatedShard;
  }

  private publish(number: number): void {
    const { random, time, keys } = this;
    const key = random.next() < 0.2 ? null : `key ${Math.floor(keys * random.next())}`;
    const place = key === null ? number : Number(key.at(-1));
    const base = { id: String(number), event: event.name, version: 1, key, payload: number };
    const message = { ...base, publishedAt: new Date(time.now()), shard: place % 3 === 0 ? 0 : 1 };
    this.messages.push(message);
    this.broker.append(message, place);
    if (random.next() >= this.rates.repeat) return;
    // A relay that took over repeats what the one before it had published last.
    const last = 1 + Math.floor(3 * random.next());
    for (const each of this.messages.slice(-last))
      this.broker.append(each, each.key === null ? Number(each.id) : Number(each.key.at(-1)));
  }

  private start(): void {
    const machine: Machine = { name: `process ${++this.machines}`, isDead: false, frozenUntil: 0 };
    this.time.after(0, () => this.startOn(machine), machine);
  }

  private startOn(machine: Machine): void {
    const { time, random, shards, handlers } = this;
    const made: { runner?: JobRunner } = {};
    const store = this.makeStore({
      name: "broker",
      parking: {
        blocked: (shard, jobs) =>
          (shards[shard] as SimulatedShard).ask(machine, "blocked", () => shards[shard]?.blocked(jobs) ?? []),
        park: (shard, jobs) =>
          (shards[shard] as SimulatedShard).ask(machine, "park", () => {
            shards[shard]?.park(jobs);
            for (const { message, handler } of jobs) this.parked.add(`${message.id} ${handler}`);
          }),
        noteStep: (tx, job, step) => {
          const { shard } = tx as { shard: SimulatedShard };
          return shard.ask(machine, "once", () => shard.note(tx as never, `${job.jobId} ${job.handler} ${step}`));
        },
      },
      clock: time,
      onReady: () => made.runner?.wake("broker"),
      onParked: (shard) => made.runner?.wake(`shard ${shard}`),
    });
    const onDone = (message: BrokerMessage, handler: string) => {
      if (!this.effects.isDone(message, handler))
        this.violate(`job ${message.id} of "${handler}" was removed and is not done`);
    };
    const running = new Map<string, number>();
    const context = { machine, store, running, isStopping: false } as { -readonly [K in keyof Process]: Process[K] };
    context.runner = startJobRunner<Process>({
      ...{ handlers, context, log: silentLogger, clock: time, random },
      stores: [...shards.map((shard) => shard.storeFor(machine, onDone)), this.watched(machine, store)],
      ...{ pollMs: 500, heartbeatMs: 500, leaseMs: 1_500, graceMs: 800 },
    });
    made.runner = context.runner;
    context.connection = this.broker.connect(machine, this.room, (delivery) => {
      store.deliver(delivery);
      const kept = insideOf(store).waiting.get(delivery.handler)?.length ?? 0;
      if (kept > 2 * this.room) this.violate(`${kept} deliveries are kept; room ${this.room}`);
    });
    this.processes.add(context);
  }

  /** Sees that no two of a key are begun at once. */
  private watched(machine: Machine, store: BrokerStore): JobStore {
    const begun = new Map<string, string>();
    return {
      name: store.name,
      claim: async (workerId, wanted) => {
        const jobs = await store.claim(workerId, wanted);
        for (const { handler, key, jobId } of jobs) {
          if (key === null) continue;
          const other = begun.get(`${handler} ${key}`);
          if (other !== undefined)
            this.violate(`${jobId} and ${other} of ${key} were under way at once in ${machine.name}`);
          begun.set(`${handler} ${key}`, jobId);
        }
        return jobs;
      },
      settle: (workerId, settled) => {
        for (const { job } of settled) begun.delete(`${job.handler} ${job.key}`);
        return store.settle(workerId, settled);
      },
      heartbeat: (workerId, timeoutMs) => store.heartbeat(workerId, timeoutMs),
      leave: (workerId) => store.leave(workerId),
      once: (tx, workerId, job, step) => store.once(tx, workerId, job, step),
      oldestPublished: () => store.oldestPublished(),
      forgetSteps: (before) => store.forgetSteps(before),
    };
  }

  private handler(name: string, concurrency: number): NamedHandler<Process> {
    const options = {
      concurrency,
      attemptsMax: this.attemptsMax,
      timeLimitMs: 1_500,
      backoff: { firstMs: 100, maxMs: 1_000 },
    };
    const made = handle<number, Process>(
      event,
      (delivery, process) => this.tryOf(name, concurrency, delivery, process),
      options,
    );
    return { ...made, name };
  }

  private async tryOf(name: string, concurrency: number, delivery: Delivery<number>, process: Process): Promise<void> {
    const { running } = process;
    const count = (running.get(name) ?? 0) + 1;
    running.set(name, count);
    this.tries++;
    if (count > concurrency)
      this.violate(`${count} tries of "${name}" at once in ${process.machine.name}; limit ${concurrency}`);
    let isOver = false;
    const over = () => {
      if (!isOver) running.set(name, (running.get(name) ?? 0) - 1);
      isOver = true;
    };
    delivery.signal.addEventListener("abort", over);
    try {
      await this.effectsOf(name, delivery, process);
    } finally {
      over();
    }
  }

  private async effectsOf(name: string, delivery: Delivery<number>, process: Process): Promise<void> {
    const { random, rates, isCalm } = this;
    const number = delivery.payload;
    const chance = (rate: number) => !isCalm && random.next() < rate;
    const work = () =>
      new Promise((go) => setTimeout(go, chance(rates.hang) ? 3_000 * random.next() : 30 * random.next()));
    const message = this.messages[number] as BrokerMessage;
    await work();
    if (!this.isRepaired && this.killers.has(number)) {
      this.killedBy(`${number} ${name}`);
      this.kill(process);
      return new Promise(() => {});
    }
    if (!this.isRepaired && this.poison.has(number)) delivery.giveUp("poison");
    if (chance(rates.fail)) throw new Error("before");
    for (const [step, isOwn] of stepsOf[name] ?? []) {
      const note = () => this.effects.note(message, name, step);
      const shard = this.shards[isOwn ? message.shard : 1 - message.shard] as SimulatedShard;
      if (name === "plain") note();
      else {
        const on = {
          transaction: <R>(inside: (tx: never) => Promise<R>) =>
            shard.transaction(process.machine, (tx) => inside(tx as never)),
        };
        await delivery.once(
          on,
          async (tx) => {
            await work();
            if (chance(rates.fail / 2)) throw new Error("inside");
            (tx as { onEnd: ((isCommitted: boolean) => void)[] }).onEnd.push((isCommitted) => isCommitted && note());
          },
          step,
        );
      }
      if (chance(rates.fail / 2)) throw new Error("after");
    }
  }

  private fault(): void {
    const { random, time } = this;
    const processes = [...this.processes].filter(({ isStopping }) => !isStopping);
    const process = processes[Math.floor(processes.length * random.next())];
    if (process === undefined) return;
    const { machine, connection, runner } = process;
    const kinds = ["break", "break", "move", "move", "kill", "freeze", "stop", "shard", "shard", "pause"];
    const kind = kinds[Math.floor(random.next() * kinds.length)];
    if (kind === "break") this.broker.break(connection);
    else if (kind === "move")
      for (const sequence of this.broker.sequences) random.next() < 0.5 && this.broker.move(sequence);
    else if (kind === "kill") this.kill(process);
    else if (kind === "stop") {
      this.stop(process);
      this.start();
    } else if (kind === "freeze") {
      machine.frozenUntil = Math.max(machine.frozenUntil, time.now() + 4_000 * random.next());
      time.after(700, () => machine.frozenUntil > time.now() && !process.isStopping && this.broker.break(connection));
    } else if (kind === "shard") {
      const shard = this.shards[Math.floor(2 * random.next())] as SimulatedShard;
      shard.fail(random.next() < 0.6 ? "refusing" : "silent");
      time.after(3_000 * random.next(), () => Object.assign(shard, { state: "up" }));
    } else if (kind === "pause") this.pause(machine, connection, runner);
  }

  private pause(machine: Machine, connection: Connection, runner: JobRunner): void {
    const [handler] = this.handlers;
    if (handler === undefined) return;
    const pause = () => {
      runner.pauseOnly([handler.name]);
      this.broker.pause(connection, handler.name);
    };
    const resume = () => {
      runner.pauseOnly([]);
      this.broker.resume(connection);
    };
    this.time.after(0, pause, machine);
    this.time.after(1_500 * this.random.next(), resume, machine);
  }

  private killedBy(what: string): void {
    const deaths = (this.deathsOf.get(what) ?? 0) + 1;
    this.deathsOf.set(what, deaths);
    // Each copy of it in the broker may be begun once, and the table counts the others.
    const copies = this.rates.repeat === 0 ? 1 : 4;
    if (deaths > this.attemptsMax + copies) this.violate(`a message killed its process ${deaths} times`);
  }

  private kill(process: Process): void {
    if (process.machine.isDead) return;
    this.deaths++;
    this.ended(process, 100 * this.random.next());
    this.time.after(300, () => this.start());
  }

  private ended(process: Process, noticedMs: number): void {
    process.machine.isDead = true;
    process.isStopping = true;
    this.processes.delete(process);
    for (const shard of this.shards) shard.died(process.machine);
    this.time.after(noticedMs, () => this.broker.close(process.connection));
  }

  private stop(process: Process): void {
    process.isStopping = true;
    const stop = async () => {
      await process.runner.stop();
      for (const [name, count] of process.running)
        if (count > 0) this.violate(`"${name}" went on after ${process.machine.name} had stopped`);
      if (insideOf(process.store).underWay.size > 0)
        this.violate(`something was under way in ${process.machine.name} at its end`);
      await process.store.whenParked(1_000);
      this.ended(process, 0);
    };
    this.time.after(0, () => void stop(), process.machine);
  }

  private checkEnd(): void {
    for (const { handler, entries } of this.broker.sequences) {
      for (const { message } of entries)
        this.violate(`nobody handles ${message.id} of "${handler}", which the broker has`);
    }
    for (const { rows } of this.shards) {
      for (const { message, handler } of rows)
        this.violate(`nobody handles ${message.id} of "${handler}", which is parked`);
    }
    const wasDead = (id: string, handler: string) =>
      this.shards.some(({ everDead }) => everDead.has(`${id} ${handler}`));
    for (const { name } of this.handlers) {
      for (const violation of this.effects.violations({ messages: this.messages, handler: name, wasDead })) {
        this.violate(violation);
      }
    }
    for (const { number, refused } of this.shards) {
      for (const [where, count] of refused) {
        const kind = where.split(" ")[2] as keyof typeof refusedMax;
        if (count > (refusedMax[kind] ?? Number.POSITIVE_INFINITY))
          this.violate(`busy loop: ${count} calls in second ${where} to shard ${number}`);
      }
    }
    for (const { store, machine, isStopping } of this.processes) {
      if (isStopping) continue;
      for (const [what, size] of Object.entries(sizesOf(store))) {
        if (size > 0) this.violate(`${machine.name} keeps ${size} ${what} though nothing is left`);
      }
    }
  }
}
