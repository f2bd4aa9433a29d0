/** Where keys live: the hash is PostgreSQL's own, every key has one home, and the record refuses what disagrees. */
import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { migrate, openPlacement, placementMigrations, type ShardConnection } from "../../src/database/index.ts";
import {
  bucketCount,
  bucketOf,
  type HashPlacement,
  initialPlacement,
  shardOf,
} from "../../src/database/sharding/placement.ts";
import { hashText, hashUuid, type PostgresHash } from "../../src/database/sharding/postgres-hash.ts";
import { type Random, seededRandom } from "../../src/kernel/random.ts";
import { openShards, startTestPostgres, type TestPostgres, testSeed } from "./support.ts";

const asBigint = ({ high, low }: PostgresHash) => BigInt.asIntN(64, (BigInt(high) << 32n) | BigInt(low)).toString();

/** Keys whose hash or bucket differs from the server's. One text a key and not two columns: this is most of the test's time. */
async function wrongHashes(
  shard: ShardConnection,
  type: string,
  hash: string,
  keys: readonly string[],
): Promise<string[]> {
  const rows = await shard.query<{ found: string }>(
    undefined,
    `select ${hash}::text || ' ' || (${hash} & 1023) as found from unnest($1::${type}[]) k`,
    [keys],
  );
  return keys.filter(
    (key, index) => `${asBigint(hashUuid(key) ?? hashText(key))} ${bucketOf(key)}` !== rows[index]?.found,
  );
}

function uuidFrom(random: Random): string {
  const hex = Buffer.from(random.bytes(16)).toString("hex");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

let server: TestPostgres;
beforeAll(async () => {
  server = await startTestPostgres();
});
afterAll(() => server.stop());

/** Keys of each type that the hash is compared for, in batches: a million together, and `RUNGS_HASH_KEYS=10000000` for more. */
const keysOfEach = Number(process.env["RUNGS_HASH_KEYS"] ?? 250_000);
const batchKeys = 50_000;
const batches = Math.ceil(keysOfEach / batchKeys);

describe(`the hash, of ${keysOfEach} keys of each type`, () => {
  it("of UUIDs is the server's own, and so is the bucket", { timeout: 120_000 }, async () => {
    const [shard] = (await openShards(server, 1, { statementTimeoutMs: 0 })) as [ShardConnection];
    const random = seededRandom(testSeed("UUIDs"));
    for (let batch = 0; batch < batches; batch++) {
      const keys = Array.from({ length: batchKeys }, () => uuidFrom(random));
      // One text a key and not two columns: this is most of the test's time.
      expect(await wrongHashes(shard, "uuid", "uuid_hash_extended(k, 0)", keys)).toEqual([]);
    }
    await shard.close();
  });

  it("of texts of 0 to 64 characters of every script is the server's own", { timeout: 120_000 }, async () => {
    const [shard] = (await openShards(server, 1, { statementTimeoutMs: 0 })) as [ShardConnection];
    const random = seededRandom(testSeed("texts"));
    const alphabets = ["abcxyz019-_ ", "äßñéøΩж", "漢字かなกั", "😀🏴👩‍👩‍👧\u{10ffff}"].map((letters) => [...letters]);
    const lengthsSeen = new Set<number>();
    for (let batch = 0; batch < batches; batch++) {
      const keys = Array.from({ length: batchKeys }, (_, index) => {
        const letters = alphabets[Math.floor(index / 65) % alphabets.length] as string[];
        const length = index % 65;
        lengthsSeen.add(length);
        let text = "";
        for (let at = 0; at < length; at++) text += letters[Math.floor(random.next() * letters.length)];
        return text;
      });
      expect(await wrongHashes(shard, "text", "hashtextextended(k, 0)", keys)).toEqual([]);
    }
    expect(lengthsSeen.size).toBe(65);
    await shard.close();
  });

  it.each(["int8", "int4"] as const)(
    "of numbers of type %s is the server's own of their text",
    { timeout: 120_000 },
    async (type) => {
      const [shard] = (await openShards(server, 1, { statementTimeoutMs: 0 })) as [ShardConnection];
      const random = seededRandom(testSeed(type));
      const bits = type === "int8" ? 64n : 32n;
      for (let batch = 0; batch < batches; batch++) {
        const keys = Array.from({ length: batchKeys }, (_, index) => {
          const digits = Buffer.from(random.bytes(8)).readBigUInt64LE() >> BigInt(index % 60);
          return String(BigInt.asIntN(Number(bits), digits));
        });
        expect(await wrongHashes(shard, type, 'hashtextextended(k::text collate "C", 0)', keys)).toEqual([]);
      }
      await shard.close();
    },
  );

  it("would be found wrong if one bit of it were (planted fault)", async () => {
    const [shard] = (await openShards(server, 1)) as [ShardConnection];
    const key = randomUUID();
    const [row] = await shard.query<{ hash: string }>(undefined, "select uuid_hash_extended($1, 1)::text as hash", [
      key,
    ]);
    expect(asBigint(hashUuid(key) as PostgresHash)).not.toBe(row?.hash);
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

  it("gives shards their share of the buckets, within one", () => {
    for (let shards = 1; shards <= 64; shards++) {
      const placement = initialPlacement({ strategy: "hash", shards }) as HashPlacement;
      const counts = new Array<number>(shards).fill(0);
      for (const shard of placement.shardOfBucket) counts[shard] = (counts[shard] ?? 0) + 1;
      expect(placement.shardOfBucket).toHaveLength(bucketCount);
      expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
    }
  });

  it("gives every key exactly one shard by hash, the same for a UUID in either case", () => {
    const key = fc.oneof(fc.string({ unit: "binary" }), fc.uuid());
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 64 }), key, (shards, text) => {
        const placement = initialPlacement({ strategy: "hash", shards });
        const shard = shardOf(placement, text);
        expect(Number.isInteger(shard) && shard >= 0 && shard < shards).toBe(true);
        if (hashUuid(text) !== undefined) expect(shardOf(placement, text.toUpperCase())).toBe(shard);
      }),
    );
  });

  it("gives every key exactly one range, the one whose bounds are around it", () => {
    const splits = fc.uniqueArray(fc.string({ unit: "grapheme", minLength: 1 }), { maxLength: 8 });
    fc.assert(
      fc.property(splits, fc.string({ unit: "grapheme" }), (points, key) => {
        const bytes = (text: string) => Buffer.from(text);
        const sorted = points.toSorted((a, b) => Buffer.compare(bytes(a), bytes(b)));
        const placement = initialPlacement({ strategy: "range", shards: sorted.length + 1, splits: sorted });
        const owners = Array.from({ length: sorted.length + 1 }, (_, shard) => shard).filter((shard) => {
          const [from, to] = [sorted[shard - 1], sorted[shard]];
          return (
            (from === undefined || Buffer.compare(bytes(key), bytes(from)) >= 0) &&
            (to === undefined || Buffer.compare(bytes(key), bytes(to)) < 0)
          );
        });
        expect([shardOf(placement, key)]).toEqual(owners);
      }),
    );
  });

  it("refuses a key that is no text, also while there is one shard", () => {
    for (const shards of [1, 3]) {
      const placement = initialPlacement({ strategy: "hash", shards });
      for (const key of [undefined, null, 7, {}]) {
        expect(() => shardOf(placement, key as unknown as string)).toThrow(/A shard key must be a text/);
      }
    }
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
    expect(() => initialPlacement({ strategy: "range", shards: 3, splits: ["n", "n"] })).toThrow(/must ascend/);
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
  const openWith = (shards: readonly ShardConnection[], strategy: "hash" | "range" = "hash", splits = ["m"]) =>
    openPlacement((shards[0] as ShardConnection).kysely, shards, { strategy, splits });

  it("is written once, also by starts at the same moment, and read back the same", async () => {
    const shards = await prepared(2);
    const opened = await Promise.all(Array.from({ length: 6 }, () => openWith(shards)));
    expect(new Set(opened.map((placement) => JSON.stringify(placement))).size).toBe(1);
    await Promise.all(shards.map((shard) => shard.close()));
  });

  it("refuses other split points than those the data was placed by", async () => {
    const shards = await prepared(2);
    await openWith(shards, "range", ["m"]);
    await expect(openWith(shards, "range", ["p"])).rejects.toThrow(
      /cut at \["m"\], but database\.splits asks for \["p"\]/,
    );
    expect(await openWith(shards, "range", ["m"])).toMatchObject({ strategy: "range", splits: ["m"] });
    await Promise.all(shards.map((shard) => shard.close()));
  });

  it("refuses swapped addresses, and opens again once they are put back", async () => {
    const [first, second, third] = (await prepared(3)) as [ShardConnection, ShardConnection, ShardConnection];
    const placement = await openWith([first, second, third]);
    await expect(openWith([first, third, second])).rejects.toThrow(
      /place [12] leads to shard [12]\. Put the addresses back/,
    );
    // A start makes its tables in whatever it takes for the home database.
    await migrate({
      db: second.kysely,
      name: "home",
      service: "rungs",
      target: "home",
      migrations: placementMigrations,
    });
    await expect(openWith([second, first, third])).rejects.toThrow(/shard of another system/);
    expect(await openWith([first, second, third])).toEqual(placement);
    for (const shard of [first, second, third]) await shard.close();
  });

  it("lets one of two different first starts win, and refuses the other", async () => {
    const shards = await prepared(2);
    const outcomes = await Promise.allSettled([openWith(shards), openWith(shards, "range"), openWith(shards, "hash")]);
    const strategies = outcomes.flatMap((each) => (each.status === "fulfilled" ? [each.value.strategy] : []));
    expect(new Set(strategies).size).toBe(1);
    for (const each of outcomes) {
      if (each.status === "rejected") expect(each.reason).toMatchObject({ code: "CONFIG_INVALID" });
    }
    expect(outcomes.filter((each) => each.status === "rejected")).toHaveLength(3 - strategies.length);
    expect(strategies.length).toBeLessThan(3);
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
