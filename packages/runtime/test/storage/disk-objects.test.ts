/** The disk driver: the contract of all object stores, and what only a folder can do. */
import { fork } from "node:child_process";
import { once } from "node:events";
import { appendFile, mkdtemp, readdir, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { objectStoreContract } from "@rungs/contract/object-store-contract";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { diskObjects } from "../../src/storage/drivers/disk-objects.ts";
import type { ObjectStore } from "../../src/storage/object-store.ts";

const incomingOf = (directory: string) => readdir(join(directory, "@incoming")).catch(() => []);

objectStoreContract("disk", async () => {
  const directory = await mkdtemp(join(tmpdir(), "rungs-objects-"));
  return {
    store: diskObjects({ directory: join(directory, "made") }),
    other: diskObjects({ directory: join(directory, "made") }),
    longBytes: 3_000_000,
    isExact: true,
    leftovers: async () => (await incomingOf(join(directory, "made"))).length,
    close: () => rm(directory, { recursive: true, force: true }),
  };
});

describe("objects on a disk", () => {
  const options = { contentType: "text/plain", sizeBytesMax: 1_000_000 };
  let directory: string;
  let store: ObjectStore;

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "rungs-objects-"));
    store = diskObjects({ directory });
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  const put = (key: string, content: string) => store.put(key, Readable.from([content]), options);

  it("give their first byte alone", async () => {
    await put("first", "0123");
    const opened = await store.open("first", { range: { start: 0, end: 0 } });
    expect(await text((opened as { body: Readable }).body)).toBe("0");
    await store.remove("first");
  });

  it("leave no empty folders when they are removed, and keep those in use", async () => {
    await put("a/b/c", "x");
    await put("a/d", "y");
    await store.remove("a/b/c");
    expect(await readdir(join(directory, "a+"))).toEqual(["d"]);
    await store.remove("a/d");
    expect((await readdir(directory)).filter((name) => name !== "@incoming")).toEqual([]);
  });

  it("come and go at once in one folder without an error", async () => {
    const churn = async (name: string) => {
      for (let round = 0; round < 40; round++) {
        await put(`churn/deep/${name}`, name);
        await store.remove(`churn/deep/${name}`);
      }
    };
    await Promise.all(["a", "b", "c", "d"].map(churn));
    expect(await store.list({ prefix: "churn/", limit: 10 })).toEqual([]);
  });

  it.each([
    ["cut", (path: string) => truncate(path, 3)],
    ["lengthened", (path: string) => appendFile(path, "more")],
    ["emptied", (path: string) => truncate(path, 0)],
  ])("%s from outside are told, not served", async (_, damage) => {
    await put("damaged", "hello");
    await damage(join(directory, "damaged"));
    const told = { code: "STORAGE_FAILED", canRetry: false };
    await expect(store.open("damaged")).rejects.toMatchObject(told);
    await expect(store.stat("damaged")).rejects.toMatchObject(told);
    await put("damaged", "whole again");
    expect(await store.stat("damaged")).toMatchObject({ sizeBytes: 11 });
  });

  it("of crashed writers are removed by age, those of living ones not", async () => {
    const folder = await mkdtemp(join(tmpdir(), "rungs-objects-"));
    const first = diskObjects({ directory: folder });
    await first.put("x", Readable.from(["x"]), options);
    const [old, young] = ["1-old", "2-young"].map((name) => join(folder, "@incoming", name)) as [string, string];
    await Promise.all([writeFile(old, "half"), writeFile(young, "half")]);
    await utimes(old, new Date(Date.now() - 7_200_000), new Date(Date.now() - 7_200_000));
    await diskObjects({ directory: folder }).put("y", Readable.from(["y"]), options);
    expect(await incomingOf(folder)).toEqual(["2-young"]);
    await rm(folder, { recursive: true });
  });

  it("survive kill -9 of their writers: each is one whole version or not there", { timeout: 60_000 }, async () => {
    const folder = await mkdtemp(join(tmpdir(), "rungs-objects-"));
    const program = fileURLToPath(new URL("./support/write-until-killed.ts", import.meta.url));
    for (let round = 0; round < 6; round++) {
      const child = fork(program, [folder, String(round)]);
      await once(child, "message");
      await new Promise((resolve) => setTimeout(resolve, 20 + round * 15));
      child.kill("SIGKILL");
      await once(child, "exit");
    }
    const survivor = diskObjects({ directory: folder });
    const found = await survivor.list({ prefix: "", limit: 1_000 });
    expect(found.length).toBeGreaterThan(0);
    for (const { key } of found) {
      const opened = await survivor.open(key);
      const content = await text((opened as { body: Readable }).body);
      expect([opened?.contentType, opened?.sizeBytes]).toEqual([`text/${content[0]}`, content.length]);
      expect(content).toBe((content[0] as string).repeat(content.length));
    }
    await rm(folder, { recursive: true });
  });

  it("cannot be stored where nothing may be written, and the error says where", async () => {
    const file = join(directory, "a-file");
    await writeFile(file, "");
    await expect(diskObjects({ directory: file }).put("x", Readable.from(["x"]), options)).rejects.toMatchObject({
      code: "STORAGE_FAILED",
      message: expect.stringContaining(file),
    });
  });
});
