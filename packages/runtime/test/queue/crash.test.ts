/** Workers killed at random while they move money: each effect exactly once, in the order of its key, to the cent. */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startTestPostgres } from "@rungs/contract/test-postgres";
import { sql } from "kysely";
import { expect, it } from "vitest";
import { migrate } from "../../src/database/index.ts";
import { seededRandom } from "../../src/kernel/random.ts";
import { jobAdmin, queueMigrations } from "../../src/queue/index.ts";
import { bankSql, isPoison, openBank, ownerAt, transferOrdered } from "./crash-bank.ts";

const program = fileURLToPath(new URL("crash-bank.ts", import.meta.url));
const transfers = Number(process.env["CRASH_JOBS"] ?? 10_000);
const kills = Number(process.env["CRASH_ROUNDS"] ?? 50);
const owners = 100;
const timeoutMs = 240_000;

it(
  `moves each of ${transfers} amounts once and in order through ${kills} kills of workers`,
  async () => {
    const seed = Number(process.env["CRASH_SEED"] ?? Date.now() % 2 ** 31);
    console.info(`queue crash test: CRASH_SEED=${seed}`);
    const random = seededRandom(seed);
    const pick = (below: number) => Math.floor(random.next() * below);
    const server = await startTestPostgres();
    const urls = [await server.createDatabase(), await server.createDatabase()];
    const bank = openBank(urls);
    const workers = new Set<ChildProcess>();
    const startWorker = async () => {
      const child = fork(program, [JSON.stringify(urls)], { stdio: ["ignore", "inherit", "inherit", "ipc"] });
      workers.add(child);
      child.once("exit", () => workers.delete(child));
      await once(child, "message");
    };
    try {
      for (const shard of bank.shards) {
        const target = { db: shard.kysely, name: shard.name, service: "rungs_queue", target: "shards" } as const;
        await migrate({ ...target, migrations: queueMigrations });
        await sql.raw(bankSql).execute(shard.kysely);
      }
      await Promise.all([startWorker(), startWorker(), startWorker()]);
      const numbers = Array.from({ length: owners }, () => 0);
      let published = 0;
      const publishAll = async () => {
        while (published < transfers) {
          const payer = pick(owners);
          const payerId = ownerAt(payer);
          const count = Math.min(1 + pick(20), transfers - published);
          await bank.db.for(payerId).transaction(async (tx) => {
            for (let index = 0; index < count; index++) {
              const number = numbers[payer] ?? 0;
              numbers[payer] = number + 1;
              const order = { payerId, payeeId: ownerAt(pick(owners)), number, amount: 1 + pick(500) };
              tx.publish(transferOrdered, order, { key: payerId });
            }
          });
          published += count;
          // Spread over the kills.
          await sleep(2);
        }
      };
      const publishing = publishAll();
      for (let round = 0; round < kills; round++) {
        await sleep(pick(200));
        [...workers][pick(workers.size)]?.kill("SIGKILL");
        await startWorker();
      }
      await publishing;
      const admin = jobAdmin(bank.shards);
      const isDone = async () =>
        (await admin.counts()).every(
          ({ ready, running, waiting, scheduled, retrying }) => ready + running + waiting + scheduled + retrying === 0,
        );
      await expect.poll(isDone, { timeout: timeoutMs / 2, interval: 100 }).toBe(true);

      const poisoned = numbers.reduce((sum, count) => sum + Math.floor(count / 97), 0);
      const [counts] = await admin.counts();
      expect(counts?.dead ?? 0).toBe(poisoned);
      const rows = await bank.db.everywhere<{ owner_id: string; number: number; amount: number; position: number }>(
        (shard) => shard.selectFrom("journal").selectAll().orderBy("position").execute(),
      );
      expect(rows.reduce((sum, { amount }) => sum + amount, 0)).toBe(0);
      expect(rows.filter(({ amount }) => amount > 0)).toHaveLength(transfers - poisoned);
      for (const [payer, count] of numbers.entries()) {
        const paid = rows.filter(({ owner_id, amount }) => owner_id === ownerAt(payer) && amount < 0);
        const expected = Array.from({ length: count }, (_, number) => number).filter((number) => !isPoison(number));
        expect(paid.map(({ number }) => number)).toEqual(expected);
      }
    } finally {
      for (const child of workers) child.kill("SIGKILL");
      await bank.db.close();
      await server.stop();
    }
  },
  timeoutMs,
);
