/** What every part of the queue contract uses: events, effects that show when they happen twice, and a queue for a while. */
import { type Generated, sql } from "kysely";
import type { Database } from "rungs/database";
import { statements } from "rungs/database";
import {
  defineEvent,
  type Handler,
  type handle,
  type JobAdmin,
  type NamedHandler,
  type NamedSchedule,
  type publication,
} from "rungs/queue";
import { z } from "zod";

/** The tables that `open` must make on each shard: `effects` without any constraint, so that a double effect shows. */
export interface EffectTables {
  effects: { owner_id: string; name: string; number: number; position: Generated<number> };
}

/** SQL of {@link EffectTables}. */
export const effectTablesSql = `
  create table effects (owner_id uuid not null, name text not null, number integer not null,
    position bigint generated always as identity);
  create index effects_by_owner on effects (owner_id)`;

/** A worker at work. */
export interface WorkerUnderTest {
  stop(): Promise<void>;
}

/** How a worker is run; every bound is small in tests. */
export interface WorkerOptions {
  readonly graceMs?: number;
  readonly leaseMs?: number;
}

/** A queue over real servers with at least two shards, empty. */
export interface QueueUnderTest {
  readonly db: Database<EffectTables>;
  readonly admin: JobAdmin;
  startWorker(options?: WorkerOptions): Promise<WorkerUnderTest>;
  /** Whether no worker has anything in its hands; what a broker's consumer holds is counted nowhere else. */
  isIdle(): boolean;
  /**
   * A worker that claims `jobs` of the handler, gives a sign of life once and then none: as if frozen. `thaw` runs
   * its handler on what it had claimed. `cutOff`: a broker sees that it is gone; job tables see that by themselves.
   */
  startFrozenWorker(
    handler: string,
    jobs: number,
  ): Promise<{
    readonly claimed: number;
    thaw(): Promise<readonly unknown[]>;
    cutOff(): Promise<void>;
  }>;
  close(): Promise<void>;
}

export type Handlers = Readonly<Record<string, Handler<undefined>>>;

export interface Noted {
  readonly ownerId: string;
  readonly name: string;
  readonly number: number;
}

export const noted = defineEvent(
  "thing.noted",
  z.object({
    ownerId: z.uuid(),
    name: z.string(),
    number: z.int(),
    secret: z.string().meta({ sensitive: true }).optional(),
  }),
);
export const other = defineEvent("thing.other", z.object({ number: z.int() }));

/** The states of jobs that are neither done nor given up. */
const live = ["ready", "running", "waiting", "scheduled", "retrying"] as const;

export const ownerAt = (index: number) => `0190c7a0-0000-7000-8000-${index.toString(16).padStart(12, "0")}`;
export const ann = ownerAt(1);

const define = statements<EffectTables>();
export const addEffect = define<Noted>()("contract_add_effect", (q, p) =>
  q.insertInto("effects").values({ owner_id: p.ownerId, name: p.name, number: p.number }).returning("number"),
);
export const renameEffects = define<{ ownerId: string; name: string }>()("contract_rename_effects", (q, p) =>
  q.updateTable("effects").set({ name: p.name }).where("owner_id", "=", p.ownerId).returning("number"),
);

/** Always gives one row; `renamed` is null when there was nothing to rename. */
export const renameOnce = define<{ ownerId: string; name: string }>()("contract_rename_once", (q, p) =>
  q
    .with("changed", (w) =>
      w
        .updateTable("effects")
        .set({ name: p.name })
        .where("owner_id", "=", p.ownerId)
        .where("name", "<>", p.name)
        .returning("number"),
    )
    .selectNoFrom((eb) => [
      sql<string>`${p.ownerId}::uuid`.as("owner"),
      eb.selectFrom("changed").select("number").as("renamed"),
    ]),
);

export const note = (name: string, number: number, ownerId = ann): Noted => ({ ownerId, name, number });

/** How a driver is put under the contract. */
export interface QueueContractOptions {
  readonly name: string;
  /**
   * Whether a broker carries what is due at once; default false. Then messages wait in several places: priorities rule within the
   * job table only, and a worker that was taken over finds its steps made instead of its lease lost.
   */
  readonly hasBroker?: boolean;
  open(handlers: readonly NamedHandler<undefined>[], schedules: readonly NamedSchedule[]): Promise<QueueUnderTest>;
  /** Stops the servers. */
  close(): Promise<void>;
}

/** The helpers of the contract's parts over one driver. */
export function queueHarness(contract: QueueContractOptions) {
  const open = (handlers: Handlers, schedules: readonly NamedSchedule[] = []) =>
    contract.open(
      Object.entries(handlers).map(([name, handler]) => ({ ...handler, name })),
      schedules,
    );

  /** Opens a queue for the time of `use`. */
  async function withQueue(
    handlers: (queue: () => QueueUnderTest) => Handlers,
    use: (queue: QueueUnderTest) => Promise<void>,
    schedules: readonly NamedSchedule[] = [],
  ): Promise<void> {
    let queue: QueueUnderTest | undefined;
    queue = await open(
      handlers(() => queue as QueueUnderTest),
      schedules,
    );
    try {
      await use(queue);
    } finally {
      await queue.close();
    }
  }

  const publish = (queue: QueueUnderTest, payload: Noted, how?: Parameters<typeof publication>[2]) =>
    queue.db.for(payload.ownerId).transaction(async (tx) => tx.publish(noted, payload, how));
  const publishMany = (queue: QueueUnderTest, ownerId: string, payloads: readonly [Noted, string | undefined][]) =>
    queue.db.for(ownerId).transaction(async (tx) => {
      for (const [payload, key] of payloads) tx.publish(noted, payload, key === undefined ? {} : { key });
    });
  const effects = (queue: QueueUnderTest) =>
    queue.db.everywhere<Noted>((shard) =>
      shard.selectFrom("effects").select(["owner_id as ownerId", "name", "number"]).execute(),
    );
  const isEmptyNow = async (queue: QueueUnderTest) =>
    queue.isIdle() &&
    (await queue.admin.counts()).every((of) => live.every((state) => of[state] === 0)) &&
    queue.isIdle();
  /** With a broker a message is nowhere to be seen while it is on a wire, so it is looked for several times. */
  const isEmpty = async (queue: QueueUnderTest) => {
    for (let look = 0; look < (contract.hasBroker === true ? 5 : 1); look++) {
      if (look > 0) await new Promise((resolve) => setTimeout(resolve, 30));
      if (!(await isEmptyNow(queue))) return false;
    }
    return true;
  };
  /** Writes the payload as an effect, once. */
  const write = (queue: () => QueueUnderTest) => async (delivery: { payload: Noted; once: OnceOf }) => {
    const { ownerId, name, number } = delivery.payload;
    await delivery.once(queue().db.for(ownerId), (tx) => tx.run(addEffect, { ownerId, name, number }));
  };

  const { hasBroker = false } = contract;
  return { withQueue, publish, publishMany, effects, isEmpty, write, hasBroker };
}

export type QueueHarness = ReturnType<typeof queueHarness>;

type OnceOf = Parameters<Parameters<typeof handle<Noted>>[1]>[0]["once"];

/** Waits, with real time because a server's clock is in play; fails after `limitMs`. */
export async function until(condition: () => boolean | Promise<boolean>, limitMs = 10_000): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not so after ${limitMs} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
