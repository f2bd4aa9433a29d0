import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate } from "../../src/database/migrate.ts";
import { seededRandom } from "../../src/kernel/random.ts";
import { readSigningKey, signingKeyMigrations } from "../../src/session/drivers/database-signing-key.ts";
import { openSessionDatabase } from "./session-database.ts";

describe("the signing key", () => {
  let database: Awaited<ReturnType<typeof openSessionDatabase>>;
  beforeAll(async () => {
    database = await openSessionDatabase();
    const { kysely } = database.home;
    const service = "rungs_signing_keys";
    await migrate({ db: kysely, name: "home", service, target: "home", migrations: signingKeyMigrations });
  });
  afterAll(() => database?.close());

  const read = (name: string, seed: number) =>
    readSigningKey({ database: database.home, name, random: seededRandom(seed) });

  it("is the same for all processes that start at once, and at every later start", async () => {
    const keys = await Promise.all(Array.from({ length: 20 }, (_, seed) => read("seen", seed)));
    expect(new Set(keys.map((key) => key.toString("hex"))).size).toBe(1);
    expect(keys[0]).toHaveLength(32);
    expect(await read("seen", 99)).toEqual(keys[0]);
    expect(await read("other", 99)).not.toEqual(keys[0]);
  });
});
