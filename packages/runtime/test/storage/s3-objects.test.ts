/** The S3 driver against a real server: the contract of all object stores, and what networks and servers do to it. */
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { objectStoreContract } from "@rungs/contract/object-store-contract";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type S3ObjectsOptions, s3Objects } from "../../src/storage/drivers/s3-objects.ts";
import { startTestS3, type TestS3 } from "./support/s3-server.ts";

const mebibyte = 1_024 * 1_024;

objectStoreContract("s3", async () => {
  const s3 = await startTestS3();
  const open = () => s3Objects({ ...s3.credentials, endpoint: s3.endpoint, partBytes: 5 * mebibyte });
  return {
    store: open(),
    other: open(),
    longBytes: 12 * mebibyte + 3,
    isExact: false,
    leftovers: async () => s3.unfinished.size,
    close: () => s3.close(),
  };
});

describe("objects in a bucket", () => {
  let s3: TestS3;
  const options = { contentType: "text/plain", sizeBytesMax: 100 * mebibyte };
  const store = (more: Partial<S3ObjectsOptions> = {}) =>
    s3Objects({ ...s3.credentials, endpoint: s3.endpoint, partBytes: 5 * mebibyte, backoffFirstMs: 1, ...more });

  beforeAll(async () => {
    s3 = await startTestS3();
  });
  afterAll(() => s3?.close());
  beforeEach(() => {
    s3.seen.length = 0;
  });

  it("are listed from a key on, at most as many as asked", async () => {
    const put = (key: string) => store().put(key, Readable.from(["x"]), options);
    for (const key of ["listed/1", "listed/2", "listed/3"]) await put(key);
    s3.seen.length = 0;
    const found = await store().list({ prefix: "listed/", after: "listed/1", limit: 17 });
    expect(found.map(({ key, sizeBytes }) => [key, sizeBytes])).toEqual([
      ["listed/2", 1],
      ["listed/3", 1],
    ]);
    expect(found.every(({ modifiedAt }) => Math.abs(modifiedAt.getTime() - Date.now()) < 60_000)).toBe(true);
    expect(Object.fromEntries(s3.seen[0]?.query ?? [])).toMatchObject({ "max-keys": "17", "start-after": "listed/1" });
  });

  it("are sent whole when they fit into one part, else in parts of that size", async () => {
    await store().put("small", Readable.from([randomBytes(1_000)]), options);
    expect(s3.seen.map(({ method, bodyBytes }) => [method, bodyBytes])).toEqual([["PUT", 1_000]]);
    s3.seen.length = 0;
    await store().put("large", Readable.from([randomBytes(11 * mebibyte)]), options);
    expect(s3.seen.map(({ method, bodyBytes }) => [method, method === "PUT" ? bodyBytes : 0])).toEqual([
      ["POST", 0],
      ["PUT", 5 * mebibyte],
      ["PUT", 5 * mebibyte],
      ["PUT", mebibyte],
      ["POST", 0],
    ]);
  });

  it("take one part of memory, however long they are", async () => {
    let produced = 0;
    const ahead: number[] = [];
    const sent = () => s3.seen.reduce((sum, { method, bodyBytes }) => sum + (method === "PUT" ? bodyBytes : 0), 0);
    const body = Readable.from(
      (function* () {
        for (; produced < 40 * mebibyte; produced += mebibyte) {
          ahead.push(produced - sent());
          yield Buffer.alloc(mebibyte, "x");
        }
      })(),
      { highWaterMark: 1 },
    );
    await store().put("long", body, options);
    expect(Math.max(...ahead)).toBeLessThanOrEqual(10 * mebibyte);
    expect(await store().stat("long")).toMatchObject({ sizeBytes: 40 * mebibyte });
  });

  it.each(["answer 503", "reset"] as const)("outlive a server that does this for a while: %s", async (fault) => {
    s3.fail(fault, 2);
    const content = randomBytes(6 * mebibyte);
    await store().put("retried", Readable.from([content]), options);
    s3.fail(fault, 3);
    const opened = await store().open("retried");
    expect((await buffer((opened as { body: Readable }).body)).equals(content)).toBe(true);
    s3.fail(fault, 1);
    expect(await store().list({ prefix: "retried", limit: 10 })).toHaveLength(1);
    s3.fail(fault, 1);
    await store().remove("retried");
    expect(await store().stat("retried")).toBeUndefined();
  });

  it("give up after so many tries, and say that it may be tried again", async () => {
    s3.fail("answer 503", 3);
    const refused = store({ attemptsMax: 3 }).stat("small");
    await expect(refused).rejects.toMatchObject({ code: "STORAGE_FAILED", canRetry: true });
    expect(s3.seen).toHaveLength(3);
  });

  it("do not wait for a silent server beyond the limit, before the answer or within its body", async () => {
    s3.fail("silence", 1);
    const began = performance.now();
    const silent = store({ attemptsMax: 1, timeoutMs: 200 }).stat("small");
    await expect(silent).rejects.toMatchObject({ code: "STORAGE_FAILED", canRetry: true });
    expect(performance.now() - began).toBeLessThan(5_000);
  });

  it("that break off while they are read end in an error, not as if they were shorter", async () => {
    await store().put("cut", Readable.from([randomBytes(4 * mebibyte)]), options);
    s3.fail("cut the body", 1);
    const opened = await store().open("cut");
    await expect(buffer((opened as { body: Readable }).body)).rejects.toMatchObject({ code: "STORAGE_FAILED" });
  });

  it("of which a part fails are given up and aborted", async () => {
    s3.fail("answer 503", 4, ({ query }) => query.get("partNumber") === "2");
    const failed = store().put("unfinished", Readable.from([randomBytes(11 * mebibyte)]), options);
    await expect(failed).rejects.toMatchObject({ code: "STORAGE_FAILED", canRetry: true });
    expect(s3.unfinished.size).toBe(0);
    expect(await store().stat("unfinished")).toBeUndefined();
  });

  it("behind wrong keys, rights or bucket are a matter for a person, and no secret is told", async () => {
    const secretAccessKey = "a-wrong-and-secret-key";
    const wrong = await store({ secretAccessKey })
      .put("x", Readable.from(["x"]), options)
      .catch((error: unknown) => error as Error);
    expect(wrong).toMatchObject({ code: "STORAGE_REFUSED" });
    expect(JSON.stringify([(wrong as Error).message, wrong])).not.toContain(secretAccessKey);
    for (const call of [
      (none: ReturnType<typeof store>) => none.put("x", Readable.from(["x"]), options),
      (none: ReturnType<typeof store>) => none.open("x"),
      (none: ReturnType<typeof store>) => none.list({ prefix: "", limit: 1 }),
    ])
      await expect(call(store({ bucket: "no-such-bucket" }))).rejects.toMatchObject({ code: "STORAGE_REFUSED" });
    s3.fail("answer 403", 1);
    await expect(store().stat("small")).rejects.toMatchObject({ code: "STORAGE_REFUSED" });
  });

  it("need parts that the protocol takes and a bucket that can be", () => {
    expect(() => store({ partBytes: mebibyte })).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }));
    expect(() => store({ bucket: "../up" })).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }));
  });
});
