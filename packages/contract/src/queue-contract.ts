/**
 * What every queue must do, whatever carries its messages: published with the transaction, handled at least once, in order
 * per key, with effects exactly once. Run it against the real servers behind each driver.
 */

import { type Generated, sql } from "kysely";
import { seededRandom } from "rungs";
import type { Database } from "rungs/database";
import { statements } from "rungs/database";
import {
  defineEvent,
  type Handler,
  handle,
  type JobAdmin,
  type NamedHandler,
  type NamedSchedule,
  publication,
} from "rungs/queue";
import { afterAll, describe, expect, it } from "vitest";
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
  /**
   * A worker that claims what it can get of the handler, gives a sign of life once and then none: as if frozen. `thaw` runs
   * its handler on what it had claimed.
   */
  startFrozenWorker(handler: string): Promise<{ readonly claimed: number; thaw(): Promise<readonly unknown[]> }>;
  close(): Promise<void>;
}

export type Handlers = Readonly<Record<string, Handler<undefined>>>;

interface Noted {
  readonly ownerId: string;
  readonly name: string;
  readonly number: number;
}

const noted = defineEvent(
  "thing.noted",
  z.object({
    ownerId: z.uuid(),
    name: z.string(),
    number: z.int(),
    secret: z.string().meta({ sensitive: true }).optional(),
  }),
);
const other = defineEvent("thing.other", z.object({ number: z.int() }));

/** The states of jobs that are neither done nor given up. */
const live = ["ready", "running", "waiting", "scheduled", "retrying"] as const;

const ownerAt = (index: number) => `0190c7a0-0000-7000-8000-${index.toString(16).padStart(12, "0")}`;
const ann = ownerAt(1);

const define = statements<EffectTables>();
const addEffect = define<Noted>()("contract_add_effect", (q, p) =>
  q.insertInto("effects").values({ owner_id: p.ownerId, name: p.name, number: p.number }).returning("number"),
);
const renameEffects = define<{ ownerId: string; name: string }>()("contract_rename_effects", (q, p) =>
  q.updateTable("effects").set({ name: p.name }).where("owner_id", "=", p.ownerId).returning("number"),
);

/** Always gives one row; `renamed` is null when there was nothing to rename. */
const renameOnce = define<{ ownerId: string; name: string }>()("contract_rename_once", (q, p) =>
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

export function queueContract(options: {
  readonly name: string;
  open(handlers: readonly NamedHandler<undefined>[], schedules: readonly NamedSchedule[]): Promise<QueueUnderTest>;
  /** Stops the servers. */
  close(): Promise<void>;
}): void {
  const open = (handlers: Handlers, schedules: readonly NamedSchedule[] = []) =>
    options.open(
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
  const isEmpty = async (queue: QueueUnderTest) =>
    (await queue.admin.counts()).every((of) => live.every((state) => of[state] === 0));
  const note = (name: string, number: number, ownerId = ann): Noted => ({ ownerId, name, number });
  /** Writes the payload as an effect, once. */
  const write = (queue: () => QueueUnderTest) => async (delivery: { payload: Noted; once: OnceOf }) => {
    const { ownerId, name, number } = delivery.payload;
    await delivery.once(queue().db.for(ownerId), (tx) => tx.run(addEffect, { ownerId, name, number }));
  };

  describe(`the queue contract: ${options.name}`, () => {
    afterAll(() => options.close());

    describe("publishing", () => {
      it("delivers a message once its transaction has committed, and never one that was rolled back", async () => {
        const seen: number[] = [];
        await withQueue(
          () => ({ see: handle(noted, async ({ payload }) => void seen.push(payload.number)) }),
          async (queue) => {
            await queue.startWorker();
            const gate = Promise.withResolvers<void>();
            const open = queue.db.for(ann).transaction(async (tx) => {
              tx.publish(noted, note("a", 1));
              await gate.promise;
            });
            const failed = queue.db.for(ann).transaction(async (tx) => {
              tx.publish(noted, note("a", 2));
              throw new Error("no");
            });
            await expect(failed).rejects.toThrow("no");
            await publish(queue, note("a", 3));
            await until(() => seen.includes(3));
            expect(seen).toEqual([3]);
            gate.resolve();
            await open;
            await until(() => seen.length === 2);
            expect(seen).toEqual([3, 1]);
          },
        );
      });

      it("gives each handler of the event its own copy, with one id", async () => {
        const seen: string[] = [];
        const see = (name: string) => handle(noted, async ({ id }) => void seen.push(`${name} ${id}`));
        await withQueue(
          () => ({ one: see("one"), two: see("two"), none: handle(other, async () => void seen.push("none")) }),
          async (queue) => {
            await queue.startWorker();
            await publish(queue, note("a", 1));
            await until(async () => seen.length === 2 && (await isEmpty(queue)));
            const ids = seen.map((line) => line.split(" ")[1]);
            expect(seen.map((line) => line.split(" ")[0]).sort()).toEqual(["one", "two"]);
            expect(new Set(ids).size).toBe(1);
          },
        );
      });

      it("publishes with a one-statement write only when the statement gave a row", async () => {
        const seen: number[] = [];
        await withQueue(
          () => ({ see: handle(noted, async ({ payload }) => void seen.push(payload.number)) }),
          async (queue) => {
            await queue.startWorker();
            const shard = queue.db.for(ann);
            const message = (number: number) => ({ publish: [publication(noted, note("a", number))] });
            await shard.run(renameEffects, { ownerId: ann, name: "b" }, message(1));
            await shard.run(addEffect, note("a", 7), message(2));
            await shard.run(renameEffects, { ownerId: ann, name: "b" }, message(3));
            await until(() => seen.length === 2);
            expect(seen).toEqual([2, 3]);
          },
        );
      });

      it("publishes with a one-statement write only when the column asked for has a value in its first row", async () => {
        const seen: number[] = [];
        await withQueue(
          () => ({ see: handle(noted, async ({ payload }) => void seen.push(payload.number)) }),
          async (queue) => {
            await queue.startWorker();
            const shard = queue.db.for(ann);
            const rename = (number: number) =>
              shard.run(
                renameOnce,
                { ownerId: ann, name: "b" },
                { publish: [publication(noted, note("a", number))], publishIf: "renamed" },
              );
            expect(await rename(1)).toEqual([{ owner: ann, renamed: null }]);
            await shard.run(addEffect, note("a", 7));
            expect(await rename(2)).toEqual([{ owner: ann, renamed: 7 }]);
            expect(await rename(3)).toEqual([{ owner: ann, renamed: null }]);
            await publish(queue, note("a", 4));
            await until(() => seen.includes(4));
            expect(seen).toEqual([2, 4]);
            expect((await effects(queue)).map(({ name }) => name)).toEqual(["b"]);
          },
        );
      });

      it("refuses a payload that does not fit the schema at once, naming the field and not its value", async () => {
        await withQueue(
          () => ({ see: handle(noted, async () => {}) }),
          async (queue) => {
            const wrong = { ...note("a", 1), number: "x-secret-x" as unknown as number };
            await expect(publish(queue, wrong)).rejects.toMatchObject({ code: "EVENT_INVALID" });
            await expect(publish(queue, wrong)).rejects.toThrow(/number/);
            await expect(publish(queue, wrong)).rejects.not.toThrow(/x-secret-x/);
            expect(await queue.admin.counts()).toEqual([]);
          },
        );
      });

      it("publishes from serializable transactions and from handlers' own", async () => {
        const seen: number[] = [];
        await withQueue(
          (queue) => ({
            chain: handle(noted, async ({ payload, once }) => {
              await once(queue().db.for(payload.ownerId), async (tx) =>
                tx.publish(other, { number: payload.number + 1 }),
              );
            }),
            see: handle(other, async ({ payload }) => void seen.push(payload.number)),
          }),
          async (queue) => {
            await queue.startWorker();
            await queue.db.for(ann).transaction(async (tx) => tx.publish(noted, note("a", 1)), {
              isolation: "serializable",
            });
            await until(() => seen.length === 1);
            expect(seen).toEqual([2]);
          },
        );
      });
    });

    describe("effects", () => {
      it("happen once although the handler fails after them and is tried again", async () => {
        const tries: number[] = [];
        await withQueue(
          (queue) => ({
            work: handle(
              noted,
              async (delivery) => {
                tries.push(delivery.attempt);
                await write(queue)(delivery);
                if (delivery.attempt < 3) throw new Error("after the effect");
              },
              { backoff: { firstMs: 10 } },
            ),
          }),
          async (queue) => {
            await queue.startWorker();
            await publish(queue, note("a", 1));
            await until(() => isEmpty(queue));
            expect(tries).toEqual([1, 2, 3]);
            expect(await effects(queue)).toHaveLength(1);
          },
        );
      });

      it("happen once on another shard than the message's, and per step", async () => {
        await withQueue(
          (queue) => ({
            work: handle(
              noted,
              async ({ payload, once, attempt }) => {
                for (let index = 0; index < 8; index++) {
                  const effect = note(payload.name, index, ownerAt(index));
                  await once(queue().db.for(effect.ownerId), (tx) => tx.run(addEffect, effect), `owner ${index}`);
                  if (attempt === index) throw new Error("between the steps");
                }
              },
              { backoff: { firstMs: 5, maxMs: 5 } },
            ),
          }),
          async (queue) => {
            expect(queue.db.shardCount).toBeGreaterThan(1);
            await queue.startWorker();
            await publish(queue, note("a", 1));
            await until(() => isEmpty(queue));
            expect((await effects(queue)).map(({ number }) => number).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
          },
        );
      });

      it("of two steps of one name are refused, since a later try would skip the second", async () => {
        const errors: unknown[] = [];
        await withQueue(
          (queue) => ({
            work: handle(noted, async (delivery) => {
              await write(queue)(delivery);
              await write(queue)(delivery).catch((error: unknown) => errors.push(error));
            }),
          }),
          async (queue) => {
            await queue.startWorker();
            await publish(queue, note("a", 1));
            await until(() => isEmpty(queue));
            expect(errors).toMatchObject([{ code: "CONFIG_INVALID" }]);
          },
        );
      });

      it("of a worker that froze and was taken over are refused when it thaws", async () => {
        await withQueue(
          (queue) => ({ work: handle(noted, write(queue)) }),
          async (queue) => {
            for (let index = 0; index < 5; index++) await publish(queue, note("a", index));
            const frozen = await queue.startFrozenWorker("work");
            expect(frozen.claimed).toBe(5);
            await queue.startWorker({ leaseMs: 300 });
            await until(() => isEmpty(queue));
            const errors = await frozen.thaw();
            expect(errors).toHaveLength(5);
            for (const error of errors) expect(error).toMatchObject({ code: "LEASE_LOST" });
            expect((await effects(queue)).map(({ number }) => number).sort()).toEqual([0, 1, 2, 3, 4]);
          },
        );
      });
    });

    describe("order", () => {
      it("within a key is that of the transactions, over two workers and random failures", async () => {
        const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 2 ** 31);
        console.info(`order within a key: RUNGS_TEST_SEED=${seed}`);
        const random = seededRandom(seed);
        const keys = ["a", "b", "c", "d", "e"];
        await withQueue(
          (queue) => ({
            work: handle(
              noted,
              async (delivery) => {
                if (random.next() < 0.15) throw new Error("before the effect");
                await write(queue)(delivery);
                if (random.next() < 0.15) throw new Error("after the effect");
              },
              { backoff: { firstMs: 5, maxMs: 20 }, attemptsMax: 1_000 },
            ),
          }),
          async (queue) => {
            await queue.startWorker();
            await queue.startWorker();
            for (let number = 0; number < 60; number += 4) {
              const batch = [0, 1, 2, 3].flatMap((step) =>
                keys.map((key): [Noted, string] => [note(key, number + step), key]),
              );
              await publishMany(queue, ann, batch);
            }
            await until(() => isEmpty(queue), 30_000);
            const rows = await queue.db
              .for(ann)
              .selectFrom("effects")
              .orderBy("position")
              .selectAll()
              .where("owner_id", "=", ann)
              .execute();
            for (const key of keys) {
              const numbers = rows.filter(({ name }) => name === key).map(({ number }) => number);
              expect(numbers, `key ${key}`).toEqual(Array.from({ length: 60 }, (_, index) => index));
            }
          },
        );
      });

      it("of a key holds while its first message is retried, and other keys and keyless messages go on", async () => {
        const seen: string[] = [];
        await withQueue(
          () => ({
            work: handle(
              noted,
              async ({ payload, attempt }) => {
                if (payload.name === "slow" && payload.number === 0 && attempt < 3) throw new Error("again");
                seen.push(`${payload.name} ${payload.number}`);
              },
              { backoff: { firstMs: 300, maxMs: 300 } },
            ),
          }),
          async (queue) => {
            await queue.startWorker();
            await publishMany(queue, ann, [
              [note("slow", 0), "slow"],
              [note("slow", 1), "slow"],
              [note("quick", 0), "quick"],
              [note("none", 0), undefined],
              [note("slow", 2), "slow"],
              [note("quick", 1), "quick"],
            ]);
            await until(() => seen.length === 6);
            const slow = seen.filter((line) => line.startsWith("slow"));
            expect(slow).toEqual(["slow 0", "slow 1", "slow 2"]);
            expect(seen.slice(0, 3).sort()).toEqual(["none 0", "quick 0", "quick 1"]);
          },
        );
      });

      it("of a key with a long queue costs others nothing: they go first", async () => {
        const seen: string[] = [];
        await withQueue(
          () => ({
            work: handle(noted, async ({ payload }) => {
              if (payload.name === "hot") await new Promise((resolve) => setTimeout(resolve, 5));
              seen.push(payload.name);
            }),
          }),
          async (queue) => {
            await publishMany(
              queue,
              ann,
              Array.from({ length: 3_000 }, (_, index) => [note("hot", index), "hot"]),
            );
            await publishMany(
              queue,
              ann,
              Array.from({ length: 20 }, (_, index) => [note("other", index), `k${index}`]),
            );
            const worker = await queue.startWorker();
            await until(() => seen.filter((name) => name === "other").length === 20, 5_000);
            expect(seen.filter((name) => name === "hot").length).toBeLessThan(500);
            await worker.stop();
          },
        );
      });

      it("keeps a message of a key that has died from holding up the next", async () => {
        const seen: number[] = [];
        await withQueue(
          () => ({
            work: handle(noted, async ({ payload, giveUp }) => {
              if (payload.number === 0) giveUp("cannot be helped");
              seen.push(payload.number);
            }),
          }),
          async (queue) => {
            await queue.startWorker();
            await publishMany(
              queue,
              ann,
              [0, 1, 2].map((number) => [note("a", number), "a"]),
            );
            await until(() => seen.length === 2);
            expect(seen).toEqual([1, 2]);
          },
        );
      });

      it("puts higher priorities first and delays until due; a delayed message of a key takes its place then", async () => {
        const seen: string[] = [];
        await withQueue(
          () => ({ work: handle(noted, async ({ payload }) => void seen.push(payload.name), { concurrency: 1 }) }),
          async (queue) => {
            await publish(queue, note("later", 0), { key: "k", delayMs: 400 });
            await publish(queue, note("low", 0), { priority: "low" });
            await publish(queue, note("normal", 0));
            await publish(queue, note("delayed", 0), { priority: "high", delayMs: 300 });
            await publish(queue, note("keyed", 0), { key: "k" });
            await publish(queue, note("high", 0), { priority: "high" });
            const publishedAt = performance.now();
            await queue.startWorker();
            await until(() => seen.length === 6);
            expect(seen).toEqual(["high", "normal", "keyed", "low", "delayed", "later"]);
            expect(performance.now() - publishedAt).toBeGreaterThan(250);
          },
        );
      });
    });

    describe("trouble", () => {
      it("makes a message a dead letter after its last try, with the reason, and others go on meanwhile", async () => {
        const seen: number[] = [];
        await withQueue(
          () => ({
            work: handle(
              noted,
              async ({ payload }) => {
                if (payload.name === "poison") throw new Error("poisoned");
                seen.push(payload.number);
              },
              { attemptsMax: 3, backoff: { firstMs: 20, maxMs: 20 }, concurrency: 2 },
            ),
          }),
          async (queue) => {
            await queue.startWorker();
            for (let number = 0; number < 5; number++) await publish(queue, note("poison", number));
            for (let number = 0; number < 5; number++) await publish(queue, note("fine", number));
            await until(() => isEmpty(queue));
            expect(seen.sort()).toEqual([0, 1, 2, 3, 4]);
            const { jobs } = await queue.admin.list({ state: "dead", limit: 10 });
            expect(jobs).toHaveLength(5);
            expect(jobs[0]).toMatchObject({ attempts: 3, lastError: "poisoned", handler: "work" });
          },
        );
      });

      it("ends a try at its time limit, tells the handler, and refuses its late effects", async () => {
        const late: unknown[] = [];
        let aborted = 0;
        await withQueue(
          (queue) => ({
            work: handle(
              noted,
              async (delivery) => {
                if (delivery.attempt > 1) return write(queue)(delivery);
                delivery.signal.addEventListener("abort", () => aborted++);
                await new Promise((resolve) => setTimeout(resolve, 400));
                await write(queue)(delivery).catch((error: unknown) => late.push(error));
              },
              { timeLimitMs: 100, backoff: { firstMs: 10 } },
            ),
          }),
          async (queue) => {
            await queue.startWorker();
            await publish(queue, note("a", 1));
            await until(() => late.length === 1);
            await until(() => isEmpty(queue));
            expect(aborted).toBe(1);
            expect(late).toMatchObject([{ code: "LEASE_LOST" }]);
            expect(await effects(queue)).toHaveLength(1);
          },
        );
      });

      it("holds up no other message by one whose transaction hangs past its limit", async () => {
        const seen: number[] = [];
        const gate = Promise.withResolvers<void>();
        await withQueue(
          (queue) => ({
            work: handle(
              noted,
              async ({ payload, once, attempt }) => {
                if (payload.name !== "hang") return void seen.push(payload.number);
                if (attempt === 1) await once(queue().db.for(payload.ownerId), async () => gate.promise);
              },
              { timeLimitMs: 100, backoff: { firstMs: 10 } },
            ),
          }),
          async (queue) => {
            await queue.startWorker();
            await publish(queue, note("hang", 0));
            await new Promise((resolve) => setTimeout(resolve, 250));
            for (let number = 0; number < 30; number++) await publish(queue, note("fine", number));
            await until(() => seen.length === 30, 3_000);
            gate.resolve();
            await until(() => isEmpty(queue));
          },
        );
      });

      it("runs no more than the handler's concurrency at a time", async () => {
        let running = 0;
        let most = 0;
        await withQueue(
          () => ({
            work: handle(
              noted,
              async () => {
                most = Math.max(most, ++running);
                await new Promise((resolve) => setTimeout(resolve, 10));
                running--;
              },
              { concurrency: 3 },
            ),
          }),
          async (queue) => {
            for (let owner = 0; owner < 40; owner++) await publish(queue, note("a", owner, ownerAt(owner)));
            await queue.startWorker();
            await until(() => isEmpty(queue));
            expect(most).toBe(3);
          },
        );
      });

      it("stops by finishing what runs and handing back the rest, which others then run at their first try", async () => {
        const seen: string[] = [];
        await withQueue(
          () => ({
            work: handle(
              noted,
              async ({ payload, attempt }) => {
                await new Promise((resolve) => setTimeout(resolve, 100));
                seen.push(`${payload.number} at ${attempt}`);
              },
              { concurrency: 4 },
            ),
          }),
          async (queue) => {
            for (let number = 0; number < 12; number++) await publish(queue, note("a", number));
            const worker = await queue.startWorker();
            await new Promise((resolve) => setTimeout(resolve, 60));
            await worker.stop();
            expect(seen).toHaveLength(4);
            const [counts] = await queue.admin.counts();
            expect(counts).toMatchObject({ ready: 8, running: 0 });
            await queue.startWorker();
            await until(() => seen.length === 12);
            expect(seen.every((line) => line.endsWith("at 1"))).toBe(true);
          },
        );
      });

      it("breaks off at the end of its grace what does not finish, and hands it back", async () => {
        let isAborted = false;
        await withQueue(
          () => ({
            work: handle(noted, async ({ signal }) => {
              await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
              isAborted = true;
            }),
          }),
          async (queue) => {
            const worker = await queue.startWorker({ graceMs: 50 });
            await publish(queue, note("a", 1));
            await until(async () => (await queue.admin.counts())[0]?.running === 1);
            await worker.stop();
            expect(isAborted).toBe(true);
            expect((await queue.admin.counts())[0]).toMatchObject({ ready: 1, running: 0 });
          },
        );
      });
    });

    describe("schedules", () => {
      it("publish once each time they fall due, however many workers run", async () => {
        const seen: number[] = [];
        await withQueue(
          () => ({ tick: handle(other, async ({ payload }) => void seen.push(payload.number)) }),
          async (queue) => {
            const since = performance.now();
            await queue.startWorker();
            await queue.startWorker();
            await until(() => seen.length >= 2, 8_000);
            const elapsedMs = performance.now() - since;
            expect(seen.length).toBeLessThanOrEqual(Math.floor(elapsedMs / 1_000));
          },
          [{ name: "ticks", schedule: { event: other, payload: { number: 7 }, everyMs: 1_000 } }],
        );
      });
    });

    describe("administration", () => {
      it("counts, lists in pages, shows with redaction, retries and drops", async () => {
        const seen: number[] = [];
        let isMended = false;
        await withQueue(
          () => ({
            work: handle(noted, async ({ payload, giveUp }) => {
              if (!isMended) giveUp("not mended yet");
              seen.push(payload.number);
            }),
          }),
          async (queue) => {
            for (let number = 0; number < 7; number++) {
              await publish(queue, { ...note("a", number, ownerAt(number)), secret: "hush" } as Noted, { key: "k" });
            }
            await publish(queue, note("a", 99), { delayMs: 3_600_000 });
            await queue.startWorker();
            await until(async () => (await queue.admin.counts())[0]?.dead === 7);
            expect((await queue.admin.counts())[0]).toMatchObject({ handler: "work", dead: 7, scheduled: 1, ready: 0 });

            const ids = new Set<string>();
            let after: string | undefined;
            for (let page = 0; page < 10; page++) {
              const { jobs, next } = await queue.admin.list({ limit: 3, ...(after === undefined ? {} : { after }) });
              for (const { id } of jobs) ids.add(id);
              if (next === null) break;
              after = next;
            }
            expect(ids.size).toBe(8);

            const { jobs: dead } = await queue.admin.list({ state: "dead", limit: 100 });
            const id = dead[0]?.id as string;
            const [shown] = await queue.admin.show(id);
            expect(shown).toMatchObject({ id, state: "dead", lastError: "not mended yet", key: "k" });
            expect(shown?.payload).toMatchObject({ name: "a", secret: "[redacted]" });

            isMended = true;
            expect(await queue.admin.retry({ ids: [id], limit: 10 })).toBe(1);
            await until(() => seen.length === 1);
            expect(await queue.admin.retry({ handler: "work", state: "dead", limit: 4 })).toBe(4);
            await until(() => seen.length === 5);
            expect(await queue.admin.drop({ handler: "work", state: "dead", limit: 100 })).toBe(2);
            expect(await queue.admin.drop({ handler: "work", state: "scheduled", limit: 100 })).toBe(1);
            expect(await isEmpty(queue)).toBe(true);
            await expect(queue.admin.drop({ limit: 5 })).rejects.toMatchObject({ code: "CONFIG_INVALID" });
            await expect(queue.admin.show("x")).rejects.toMatchObject({ code: "CONFIG_INVALID" });
          },
        );
      });

      it("refuses limits, ids and page marks that are none, instead of guessing", async () => {
        await withQueue(
          () => ({ work: handle(noted, async () => {}) }),
          async ({ admin }) => {
            const mark = (content: unknown) => Buffer.from(JSON.stringify(content)).toString("base64url");
            const refused = { code: "CONFIG_INVALID" };
            for (const limit of [0, -1, 1.5, Number.NaN, 1_001]) {
              await expect(admin.list({ limit })).rejects.toMatchObject(refused);
            }
            for (const limit of [0, Number.POSITIVE_INFINITY, 1_000_001]) {
              await expect(admin.drop({ state: "dead", limit })).rejects.toMatchObject(refused);
            }
            for (const after of [
              "",
              "x",
              mark(7),
              mark([99, 0, "1"]),
              mark([0, 0, "1;"]),
              mark([0, 1, "x"]),
              mark([0, 2, "1"]),
            ]) {
              await expect(admin.list({ limit: 1, after })).rejects.toMatchObject(refused);
            }
            await expect(admin.retry({ ids: ["1"], limit: 1 })).rejects.toMatchObject(refused);
            expect(await admin.drop({ ids: [], limit: 10 })).toBe(0);
          },
        );
      });

      it("drops and retries more than fit into one batch, and never more than the limit", async () => {
        await withQueue(
          () => ({ work: handle(noted, async () => {}) }),
          async (queue) => {
            const total = 6_000;
            await queue.db.for(ann).transaction(async (tx) => {
              for (let number = 0; number < total; number++)
                tx.publish(noted, note("a", number), { delayMs: 3_600_000 });
            });
            const count = async (state: "ready" | "scheduled") => (await queue.admin.counts())[0]?.[state];
            expect(await queue.admin.retry({ handler: "work", state: "scheduled", limit: 5_500 })).toBe(5_500);
            expect(await count("ready")).toBe(5_500);
            expect(await queue.admin.drop({ handler: "work", state: "ready", limit: 5_200 })).toBe(5_200);
            expect(await count("ready")).toBe(300);
            expect(await queue.admin.drop({ handler: "work", limit: 1_000_000 })).toBe(800);
            expect(await isEmpty(queue)).toBe(true);
          },
        );
      });

      it("leaves a job alone that a worker has", async () => {
        await withQueue(
          () => ({ work: handle(noted, async () => {}) }),
          async (queue) => {
            await publish(queue, note("a", 1));
            const { claimed } = await queue.startFrozenWorker("work");
            expect(claimed).toBe(1);
            const { jobs } = await queue.admin.list({ state: "running", limit: 10 });
            const ids = jobs.map(({ id }) => id);
            expect(ids).toHaveLength(1);
            expect(await queue.admin.drop({ ids, limit: 10 })).toBe(0);
            expect(await queue.admin.retry({ ids, limit: 10 })).toBe(0);
            const [shown] = await queue.admin.show(ids[0] as string);
            expect(shown).toMatchObject({ state: "running", workerId: expect.any(String) });
          },
        );
      });

      it("lets the next of a key go when the first is dropped", async () => {
        const seen: number[] = [];
        await withQueue(
          () => ({
            work: handle(
              noted,
              async ({ payload }) => {
                if (payload.number === 0) throw new Error("again");
                seen.push(payload.number);
              },
              { backoff: { firstMs: 3_600_000, maxMs: 3_600_000 } },
            ),
          }),
          async (queue) => {
            await queue.startWorker();
            await publishMany(
              queue,
              ann,
              [0, 1].map((number) => [note("a", number), "a"]),
            );
            await until(async () => (await queue.admin.counts())[0]?.retrying === 1);
            expect(seen).toEqual([]);
            expect(await queue.admin.drop({ handler: "work", state: "retrying", limit: 1 })).toBe(1);
            await until(() => seen.length === 1);
          },
        );
      });
    });
  });
}

type OnceOf = Parameters<Parameters<typeof handle<Noted>>[1]>[0]["once"];

/** Waits, with real time because a server's clock is in play; fails after `limitMs`. */
async function until(condition: () => boolean | Promise<boolean>, limitMs = 10_000): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not so after ${limitMs} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
