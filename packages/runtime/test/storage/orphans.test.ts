/** The sweep of orphans, on a real folder. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, expect, it } from "vitest";
import { diskObjects } from "../../src/storage/drivers/disk-objects.ts";
import type { ObjectStore } from "../../src/storage/object-store.ts";
import { oldKeys, sweepOrphans } from "../../src/storage/orphans.ts";

let directory: string;
let store: ObjectStore;
let now: number;
const clock = { now: () => now, monotonic: () => now };

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "rungs-orphans-"));
  store = diskObjects({ directory });
  for (let index = 10; index < 35; index++)
    await store.put(`media/${index}`, Readable.from(["x"]), { contentType: "image/webp", sizeBytesMax: 10 });
  await store.put("other/1", Readable.from(["x"]), { contentType: "image/webp", sizeBytesMax: 10 });
  now = Date.now() + 100_000;
});
afterAll(() => rm(directory, { recursive: true, force: true }));

const keys = async () => (await store.list({ prefix: "", limit: 1_000 })).map(({ key }) => key);
const isEven = (key: string) => Number(key.slice(6)) % 2 === 0;
const referred = async (asked: readonly string[]) => new Set(asked.filter(isEven));

it("leaves young objects alone and asks nobody about them", async () => {
  const nobody = () => Promise.reject(new Error("must not be asked"));
  const result = await sweepOrphans({ store, prefix: "media/", olderThanMs: 3_600_000, clock, referred: nobody });
  expect(result).toEqual({ seen: 25, removed: 0, next: undefined });
});

it("removes nothing when it cannot learn what is referred to", async () => {
  const failing = () => Promise.reject(new Error("database is away"));
  const sweep = sweepOrphans({ store, prefix: "media/", olderThanMs: 1_000, clock, referred: failing });
  await expect(sweep).rejects.toThrow("database is away");
  expect(await keys()).toHaveLength(26);
});

it("goes on where a bounded call ended, and removes exactly the old ones that nobody refers to", async () => {
  const options = { store, prefix: "media/", olderThanMs: 1_000, clock, referred, objectsMax: 10, pageSize: 4 };
  const first = await sweepOrphans(options);
  expect(first).toEqual({ seen: 10, removed: 5, next: "media/19" });
  const second = await sweepOrphans({ ...options, after: first.next });
  const third = await sweepOrphans({ ...options, after: second.next });
  expect([second.seen, third]).toEqual([10, { seen: 5, removed: 2, next: undefined }]);
  const left = await keys();
  expect(left.filter((key) => key.startsWith("media/")).every(isEven)).toBe(true);
  expect(left).toHaveLength(14);
});

it("stops at an abort", async () => {
  const signal = AbortSignal.abort(new Error("stopped"));
  const sweep = sweepOrphans({
    store,
    prefix: "media/",
    olderThanMs: 1_000,
    clock,
    referred: async () => new Set(),
    signal,
  });
  await expect(sweep).rejects.toThrow("stopped");
  expect(await keys()).toHaveLength(14);
});

it("counts an object as old only before the moment", () => {
  const at = (ms: number) => ({ key: `k${ms}`, modifiedAt: new Date(ms) });
  expect(oldKeys([at(1), at(2), at(3)], 2)).toEqual(["k1"]);
});
