/** A process that is killed while it takes a name: the name is its row's, or free again after the reservation, and never lost. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as wait } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPostgres } from "../../../src/database/drivers/postgres.ts";
import {
  type Database,
  type DirectoryReference,
  directory,
  directoryMigrations,
  initialPlacement,
  migrate,
  type ShardConnection,
  shardedDatabase,
  shardOf,
} from "../../../src/database/index.ts";
import { seededRandom } from "../../../src/kernel/random.ts";
import { startTestPostgres, type TestPostgres } from "../support.ts";
import { type Bearers, bearerTables } from "./bearers.ts";
import { uuidFrom } from "./support.ts";

const program = fileURLToPath(new URL("./name-taker.ts", import.meta.url));
const reservationMs = 300;
const placement = initialPlacement({ strategy: "hash", shards: 2 });

describe("a process killed while it takes a name", { timeout: 60_000 }, () => {
  let server: TestPostgres;
  let urls: string[];
  let db: Database<Bearers>;
  beforeAll(async () => {
    server = await startTestPostgres();
    urls = [await server.createDatabase(), await server.createDatabase()];
    const shards = urls.map(
      (url, index): ShardConnection => openPostgres({ name: `shard ${index}`, address: { url } }),
    );
    const [home] = shards as [ShardConnection];
    const migrations = directoryMigrations;
    await migrate({ db: home.kysely, name: "home", service: "rungs_directory", target: "home", migrations });
    for (const shard of shards) {
      await shard.query(undefined, "create table bearers (owner_id uuid primary key, name text not null)", []);
    }
    db = shardedDatabase<Bearers>({ shards: shards as [ShardConnection], placement, tables: bearerTables });
  });
  afterAll(async () => {
    await db.close();
    await server.stop();
  });

  const rowOf = (key: string) =>
    db.for(key).selectFrom("bearers").select("name").where("owner_id", "=", key).executeTakeFirst();
  const keys = (() => {
    const random = seededRandom(11);
    return Array.from({ length: 200 }, () => uuidFrom(random));
  })();
  const keyOn = (shard: number) =>
    keys.splice(
      keys.findIndex((key) => shardOf(placement, key) === shard),
      1,
    )[0] as string;

  /** Lets a process take so many steps and kills it, before or in the midst of the next one. */
  async function killedAfter(steps: number, name: string, key: string, isMidStep: boolean): Promise<void> {
    const child = spawn(process.execPath, [program, name, key, String(reservationMs), ...urls], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    const lines = createInterface({ input: child.stdout });
    await once(lines, "line");
    for (let step = 0; step < steps; step++) {
      child.stdin.write("go\n");
      await once(lines, "line");
    }
    if (isMidStep) child.stdin.write("go\n");
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }

  it.each([
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
    [2, 0],
    [2, 1],
    [3, 0],
    [3, 1],
  ])("after step %i on shard %i", async (steps, shard) => {
    const names = directory({ home: db.home as never, space: "people", reservationMs });
    for (const isMidStep of [false, true]) {
      const name = `name ${steps} ${shard} ${isMidStep}`;
      const [first, second] = [keyOn(shard), keyOn(1 - shard)];
      await killedAfter(steps, name, first, isMidStep);
      await wait(reservationMs + 50);
      const isAlive = async (holder: DirectoryReference) => (await rowOf(holder.key))?.name === name;
      const isTaken = (await rowOf(first)) !== undefined;
      if (!isMidStep) expect(isTaken).toBe(steps >= 2);
      const taking = names.reserve(name, { key: second, id: second }, isAlive);
      if (isTaken) await expect(taking).rejects.toMatchObject({ code: "NAME_TAKEN" });
      else {
        await taking;
        await db.for(second).insertInto("bearers").values({ owner_id: second, name }).execute();
        await names.confirm(name, { key: second, id: second });
      }
      const owner = await names.follow(name, async ({ key }) => ((await rowOf(key))?.name === name ? key : undefined));
      expect(owner).toBe(isTaken ? first : second);
    }
  });
});
