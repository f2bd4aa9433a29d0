/** Where keys live: the hash is PostgreSQL's own, every key has one home, and the record refuses what disagrees. */
import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate, openPlacement, placementMigrations, type ShardConnection } from "../../src/database/index.ts";
import { bucketCount, bucketOf, initialPlacement, shardOf } from "../../src/database/sharding/placement.ts";
import { hashText, hashUuid, type PostgresHash } from "../../src/database/sharding/postgres-hash.ts";
import { openShards, startTestPostgres, type TestPostgres } from "./support.ts";

const asBigint = ({ high, low }: PostgresHash) => BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low)).toString();

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

describe("the hash", () => {
  it("of a million UUIDs is the server's own, and so is the bucket", { timeout: 120_000 }, async () => {
    const [shard] = (await openShards(server, 1, { statementTimeoutMs: 0 })) as [ShardConnection];
    for (let batch = 0; batch < 20; batch++) {
      const keys = Array.from({ length: 50_000 }, () => randomUUID());
      const rows = await shard.query<{ hash: string; bucket: number }>(
        undefined,
        "select uuid_hash_extended(k, 0)::text as hash, (uuid_hash_extended(k, 0) & 1023)::int as bucket from unnest($1::uuid[]) k",
        [keys],
      );
      const wrong = rows.findIndex(({ hash, bucket }, index) => {
        const key = keys[index] as string;
        return asBigint(hashUuid(key) as PostgresHash) !== hash || bucketOf(key) !== bucket;
      });
      expect(wrong === -1 ? undefined : keys[wrong]).toBeUndefined();
    }
    await shard.close();
  });

  it("of texts of every length and script is the server's own", async () => {
    const [shard] = (await openShards(server, 1)) as [ShardConnection];
    const lengths = Array.from({ length: 65 }, (_, length) => length);
    const keys = lengths.flatMap((length) =>
      ["a", "ß", "漢", "😀"].map((letter, index) => letter.repeat(length) + "x".repeat(index)),
    );
    fc.sample(fc.string({ unit: "grapheme" }), 20_000).forEach((key) => void keys.push(key.replaceAll("\u0000", "")));
    const rows = await shard.query<{ hash: string }>(
      undefined,
      "select hashtextextended(k, 0)::text as hash from unnest($1::text[]) k",
      [keys],
    );
    expect(keys.filter((key, index) => asBigint(hashText(key)) !== rows[index]?.hash)).toEqual([]);
    await shard.close();
  });
});

describe("placement", () => {
  it("spreads keys evenly over buckets (chi-square below its 99.9% bound)", () => {
    const counts = new Array<number>(bucketCount).fill(0);
    const keys = 200_000;
    for (let index = 0; index < keys; index++) {
      const bucket = bucketOf(randomUUID());
      counts[bucket] = (counts[bucket] ?? 0) + 1;
    }
    const expected = keys / bucketCount;
    const chiSquare = counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
    // 1,023 degrees of freedom: mean 1,023, deviation 45; 1,168 is the 99.9% quantile.
    expect(chiSquare).toBeLessThan(1_168);
  });

  it("gives every key exactly one shard, whatever the strategy", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 64 }), fc.string(), (shards, key) => {
        const shard = shardOf(initialPlacement({ strategy: "hash", shards }), key);
        expect(Number.isInteger(shard) && shard >= 0 && shard < shards).toBe(true);
      }),
    );
  });

  it("cuts ranges byte by byte, the split point belonging to the range above", () => {
    const placement = initialPlacement({ strategy: "range", shards: 3, splits: ["N", "n"] });
    const keys = ["", "A", "M", "M~", "N", "Z", "a", "m", "n", "z", "é"];
    expect(keys.map((key) => shardOf(placement, key))).toEqual([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]);
  });

  it("refuses split points that are too few or out of order", () => {
    expect(() => initialPlacement({ strategy: "range", shards: 3, splits: ["N"] })).toThrow(
      /need 2 split points, found 1/,
    );
    expect(() => initialPlacement({ strategy: "range", shards: 3, splits: ["n", "N"] })).toThrow(/must ascend/);
  });
});

describe("the record of the placement", () => {
  const prepared = async (count: number) => {
    const shards = await openShards(server, count);
    for (const [index, shard] of shards.entries()) {
      for (const target of index === 0 ? (["shards", "home"] as const) : (["shards"] as const)) {
        await migrate({
          db: shard.kysely,
          name: shard.name,
          service: "rungs",
          target,
          migrations: placementMigrations,
        });
      }
    }
    return shards as [ShardConnection, ...ShardConnection[]];
  };
  const openWith = (shards: readonly ShardConnection[], strategy: "hash" | "range" = "hash") =>
    openPlacement((shards[0] as ShardConnection).kysely, shards, { strategy, splits: ["m"] });

  it("is written once, also by starts at the same moment, and read back the same", async () => {
    const shards = await prepared(2);
    const opened = await Promise.all(Array.from({ length: 6 }, () => openWith(shards)));
    expect(new Set(opened.map((placement) => JSON.stringify(placement))).size).toBe(1);
    await Promise.all(shards.map((shard) => shard.close()));
  });

  it("refuses another number of shards, another strategy, another order, and shards of another system", async () => {
    const [first, second] = await prepared(2);
    const other = await prepared(2);
    await openWith([first, second as ShardConnection]);
    await openWith(other);
    await expect(openWith([first])).rejects.toThrow(
      /placed on 2 shard\(s\) by hash, but the topology asks for 1 by hash.*RUNGS_SHARDS=2/,
    );
    await expect(openWith([first, second as ShardConnection], "range")).rejects.toThrow(/asks for 2 by range/);
    await expect(openWith([first, first])).rejects.toThrow(/place 1 leads to shard 0/);
    await expect(openWith([first, other[1] as ShardConnection])).rejects.toThrow(
      /place 1 leads to a shard of another system/,
    );
    for (const shard of [first, second as ShardConnection, ...other]) await shard.close();
  });
});
