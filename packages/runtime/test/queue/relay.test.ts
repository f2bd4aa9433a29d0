/** The relay between a real PostgreSQL and a real RabbitMQ: order, and who takes over from whom. */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { CompiledQuery, sql } from "kysely";
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../src/kernel/random.ts";
import { publication } from "../../src/queue/index.ts";
import { counted } from "./outbox-shard.ts";
import { accounts, isActive, leaseMs, relayHarness, until } from "./relay-harness.ts";

const { test, relays, start, startProcess, left, received, expectAllInOrder } = relayHarness();

describe("order", () => {
  it("of a key is that of its transactions, over rollbacks, slow transactions and a change of relays", async () => {
    const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 2 ** 31);
    console.info(`order in the outbox: RUNGS_TEST_SEED=${seed}`);
    const random = seededRandom(seed);
    const first = start();
    await isActive(first);
    const second = start();
    test.books.woken.add(() => first.wake()).add(() => second.wake());
    const { promise: isOver, resolve: end } = Promise.withResolvers<void>();
    // Holds vacuum back, and a writer's transaction id with it.
    const idle = test.books.shard.kysely.transaction().execute(async (tx) => {
      await sql`create table somewhere_else (id int)`.execute(tx);
      await isOver;
    });
    let published = 0;
    const publish = async () => {
      while (published < 2_400) {
        const dice = random.next();
        const transaction = test.books.count(Math.floor(random.next() * accounts), async () => {
          if (dice < 0.1) await sleep(random.next() * 60);
          if (dice > 0.85) throw new Error("rolled back");
        });
        const isCommitted = await transaction.then(
          () => true,
          () => false,
        );
        if (isCommitted) published++;
        if (published > 1_200 && relays.delete(first)) await first.stop();
      }
    };
    try {
      await Promise.all(Array.from({ length: 12 }, publish));
      await expectAllInOrder(30_000);
    } finally {
      end();
      await idle;
    }
    expect(second.stats().isActive).toBe(true);
    expect(first.stats().published + second.stats().published).toBe(published);
  }, 60_000);

  it("holds for a row that becomes visible only after higher ones were published", async () => {
    await isActive(start());
    const { promise: mayCommit, resolve: commit } = Promise.withResolvers<void>();
    const { promise: isDrawn, resolve: drawn } = Promise.withResolvers<void>();
    const slow = test.books.shard.kysely.transaction().execute(async (tx) => {
      const values = test.books.writer.values([publication(counted, { key: "slow", number: 1 }, { key: "slow" })]);
      await tx.executeQuery(CompiledQuery.raw(test.books.writer.insertSql("true"), [...(values ?? [])]));
      drawn();
      await mayCommit;
    });
    await isDrawn;
    for (let count = 0; count < 5; count++) await test.books.count(1);
    await until(() => test.delivered.length === 5);
    await until(async () => (await left()) === 0);
    commit();
    await slow;
    await until(() => test.delivered.at(-1)?.key === "slow");
  });
});

describe("a takeover", () => {
  it("from a killed relay takes no longer than its lease, and loses nothing", async () => {
    const victim = await startProcess();
    await test.books.count(0);
    await until(() => test.delivered.length === 1);
    const next = start();
    victim.kill("SIGKILL");
    const since = performance.now();
    for (let round = 0; round < 50; round++) await test.books.count(round % 5);
    await expectAllInOrder();
    expect(performance.now() - since).toBeLessThan(leaseMs + 3_000);
    expect(next.stats()).toMatchObject({ isActive: true });
  });

  it("from a frozen relay likewise; when it thaws it neither disturbs the order nor deletes what it did not publish", async () => {
    const victim = await startProcess();
    await test.books.count(0);
    await until(() => test.delivered.length === 1);
    const next = start();
    victim.kill("SIGSTOP");
    for (let round = 0; round < 100; round++) await test.books.count(round % 5);
    await isActive(next);
    const counting = (async () => {
      for (let round = 0; round < 200; round++) await test.books.count(round % 5);
    })();
    const standsBy = once(victim, "message");
    victim.kill("SIGCONT");
    expect((await standsBy)[0]).toBe("standby");
    await counting;
    await expectAllInOrder();
    expect(next.stats().isActive).toBe(true);
  });

  it("from a relay that stops takes no longer than a look, and repeats nothing", async () => {
    const first = start({ leaseMs: 60_000 });
    await isActive(first);
    const second = start({ leaseMs: 60_000 });
    const counting = (async () => {
      for (let round = 0; round < 300; round++) await test.books.count(round % 5);
    })();
    await until(() => test.delivered.length > 50);
    relays.delete(first);
    await first.stop();
    const since = performance.now();
    await isActive(second);
    expect(performance.now() - since).toBeLessThan(1_500);
    await counting;
    await expectAllInOrder();
    expect(received().repeated).toBe(0);
  });

  it("from one that died between the broker's confirm and its own delete repeats the batch and loses nothing", async () => {
    const victim = await startProcess({ diesConfirmed: true });
    const died = once(victim, "exit");
    for (let round = 0; round < 20; round++) await test.books.count(round % 5);
    await died;
    await until(() => test.delivered.length > 0);
    expect(await left()).toBe(20);
    start();
    await expectAllInOrder();
    expect(received().repeated).toBeGreaterThan(0);
  });
});
