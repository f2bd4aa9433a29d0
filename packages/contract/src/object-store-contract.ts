/** What every object store must do, whatever it is made of. Run it against the real disk or server behind each driver. */
import { randomBytes } from "node:crypto";
import { PassThrough, Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setImmediate as turn } from "node:timers/promises";
import type { ObjectStore } from "rungs/storage";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

/** A store, empty, with what the suite needs to look behind it. */
export interface ObjectStoreUnderTest {
  readonly store: ObjectStore;
  /** Another process's view of the same objects. */
  readonly other: ObjectStore;
  /** How many unfinished writes lie around. */
  leftovers(): Promise<number>;
  /** A body that is long for this driver: over its buffers or parts. */
  readonly longBytes: number;
  /**
   * False for a server made for tests that falls short of the protocol it speaks: it replaces body and description one after
   * the other, lists by file and not by key, and fails on lists that are cut at their limit. A driver cannot mend that.
   */
  readonly isExact: boolean;
  close(): Promise<void>;
}

const text = { contentType: "text/plain", sizeBytesMax: 1_000_000 } as const;

/** A body in pieces of odd sizes, so that nothing fits by chance. */
function pieces(content: Buffer, pieceBytes = 60_001): Readable {
  return Readable.from(
    (function* () {
      for (let at = 0; at < content.length; at += pieceBytes) yield content.subarray(at, at + pieceBytes);
    })(),
    { objectMode: false },
  );
}

/** Runs the suite. */
export function objectStoreContract(name: string, open: () => Promise<ObjectStoreUnderTest>): void {
  describe(`object store contract: ${name}`, () => {
    let under: ObjectStoreUnderTest;
    let store: ObjectStore;

    beforeAll(async () => {
      under = await open();
      store = under.store;
    });
    afterAll(() => under?.close());

    const put = (key: string, content: string) => store.put(key, Readable.from([Buffer.from(content)]), text);
    const read = async (key: string, range?: { start: number; end: number }, from = store) => {
      const opened = await from.open(key, range === undefined ? {} : { range });
      return opened === undefined ? undefined : (await buffer(opened.body)).toString();
    };
    const keys = async (prefix: string, after?: string, limit = 1_000) =>
      (await store.list({ prefix, limit, ...(after === undefined ? {} : { after }) })).map(({ key }) => key);

    describe("one object", () => {
      it("gives back what was stored, with its description, to another process too", async () => {
        const before = Date.now() - 2_000;
        const stored = await put("one/object.txt", "hello");
        expect(stored).toMatchObject({ key: "one/object.txt", sizeBytes: 5, contentType: "text/plain" });
        expect(stored.etag).toMatch(/^"[^"]+"$/);
        expect(stored.modifiedAt.getTime()).toBeGreaterThan(before);
        expect(await read("one/object.txt", undefined, under.other)).toBe("hello");
        const { modifiedAt, ...description } = stored;
        const opened = await under.other.open("one/object.txt");
        await buffer((opened as { body: Readable }).body);
        expect(opened).toMatchObject(description);
        expect(await under.other.stat("one/object.txt")).toMatchObject(description);
      });

      it("says that there is none by undefined, and removes none without an error", async () => {
        expect(await store.open("none/here")).toBeUndefined();
        expect(await store.stat("none/here")).toBeUndefined();
        await store.remove("none/here");
      });

      it("stores an empty body", async () => {
        expect(await store.put("one/empty", Readable.from([]), text)).toMatchObject({ sizeBytes: 0 });
        expect(await store.stat("one/empty")).toMatchObject({ sizeBytes: 0, contentType: "text/plain" });
        expect(await read("one/empty")).toBe("");
      });

      it("replaces an object: other content, other entity tag, other type", async () => {
        const first = await put("one/replaced", "first");
        const second = await store.put("one/replaced", Readable.from(["second"]), {
          ...text,
          contentType: "image/webp",
        });
        expect(second.etag).not.toBe(first.etag);
        expect(await read("one/replaced")).toBe("second");
        expect(await store.stat("one/replaced")).toMatchObject({ contentType: "image/webp", sizeBytes: 6 });
      });

      it("removes an object", async () => {
        await put("one/gone", "x");
        await store.remove("one/gone");
        expect(await store.stat("one/gone")).toBeUndefined();
        expect(await read("one/gone")).toBeUndefined();
        await put("one/gone", "again");
        expect(await read("one/gone")).toBe("again");
      });

      it("keeps a key apart from those below it", async () => {
        await put("nested", "above");
        await put("nested/below", "below");
        await put("nested/below/deeper", "deeper");
        expect([await read("nested"), await read("nested/below"), await read("nested/below/deeper")]).toEqual([
          "above",
          "below",
          "deeper",
        ]);
        await store.remove("nested/below");
        expect([await read("nested"), await read("nested/below"), await read("nested/below/deeper")]).toEqual([
          "above",
          undefined,
          "deeper",
        ]);
      });
    });

    describe("ranges", () => {
      it("gives the bytes asked for, both ends counted", async () => {
        await put("range/ten", "0123456789");
        expect(await read("range/ten", { start: 0, end: 1 })).toBe("01");
        expect(await read("range/ten", { start: 3, end: 5 })).toBe("345");
        expect(await read("range/ten", { start: 9, end: 9 })).toBe("9");
        expect(await read("range/ten", { start: 8, end: 100 })).toBe("89");
        const opened = await store.open("range/ten", { range: { start: 2, end: 3 } });
        expect(opened?.sizeBytes).toBe(10);
        opened?.body.destroy();
      });

      it("refuses a range behind the end", async () => {
        await put("range/ten", "0123456789");
        await expect(store.open("range/ten", { range: { start: 10, end: 12 } })).rejects.toMatchObject({
          code: "STORAGE_RANGE_INVALID",
        });
      });
    });

    describe("long bodies", () => {
      it("come back byte by byte, whole and in part", async () => {
        const content = randomBytes(under.longBytes);
        const options = { contentType: "video/mp4", sizeBytesMax: content.length };
        expect(await store.put("long/video", pieces(content), options)).toMatchObject({ sizeBytes: content.length });
        const opened = await store.open("long/video");
        expect((await buffer((opened as { body: Readable }).body)).equals(content)).toBe(true);
        const middle = { start: Math.floor(content.length / 2) - 7, end: Math.floor(content.length / 2) + 70_000 };
        const part = await store.open("long/video", { range: middle });
        const bytes = await buffer((part as { body: Readable }).body);
        expect(bytes.equals(content.subarray(middle.start, middle.end + 1))).toBe(true);
        expect(await store.stat("long/video")).toMatchObject({ sizeBytes: content.length, contentType: "video/mp4" });
      });

      it("over the limit are refused and leave nothing behind, also not in the object's place", async () => {
        await put("long/kept", "kept");
        const content = randomBytes(under.longBytes);
        const tooLong = store.put("long/kept", pieces(content), { ...text, sizeBytesMax: content.length - 1 });
        await expect(tooLong).rejects.toMatchObject({ code: "STORAGE_LIMIT_EXCEEDED" });
        expect(await read("long/kept")).toBe("kept");
        expect(await under.leftovers()).toBe(0);
      });

      it("whose source breaks are not stored, and the source's error comes out", async () => {
        const content = randomBytes(under.longBytes);
        const broken = Readable.from(
          (async function* () {
            yield content.subarray(0, content.length - 10);
            await turn();
            throw new Error("the client went away");
          })(),
        );
        const options = { contentType: "video/mp4", sizeBytesMax: content.length };
        await expect(store.put("long/broken", broken, options)).rejects.toThrow("the client went away");
        expect(await store.stat("long/broken")).toBeUndefined();
        expect(await under.leftovers()).toBe(0);
      });

      it("end at an abort with its reason, and leave nothing behind", async () => {
        const abort = new AbortController();
        const endless = new PassThrough();
        endless.write("begun");
        const stored = store.put("long/aborted", endless, { ...text, signal: abort.signal });
        setTimeout(() => abort.abort(new Error("enough")), 50);
        await expect(stored).rejects.toThrow("enough");
        expect(endless.destroyed).toBe(true);
        expect(await store.stat("long/aborted")).toBeUndefined();
        expect(await under.leftovers()).toBe(0);
        const late = store.put("long/late", Readable.from(["x"]), {
          ...text,
          signal: AbortSignal.abort(new Error("no")),
        });
        await expect(late).rejects.toThrow("no");
        expect(await store.stat("long/late")).toBeUndefined();
      });

      it("that are not read to their end can be dropped", async () => {
        const content = randomBytes(under.longBytes);
        await store.put("long/dropped", pieces(content), { ...text, sizeBytesMax: content.length });
        const opened = await store.open("long/dropped");
        const body = (opened as { body: Readable }).body;
        const closed = new Promise((resolve) => body.once("close", resolve));
        body.once("data", () => body.destroy());
        await closed;
        expect(body.destroyed).toBe(true);
      });
    });

    describe("writers at once", () => {
      it("leave one whole object with its own description", async () => {
        if (!under.isExact) return expect(under.other).not.toBe(store);
        const contents = Array.from({ length: 12 }, (_, index) => `${String(index).repeat(index + 1)}`);
        await Promise.all(
          contents.map((content, index) =>
            (index % 2 === 0 ? store : under.other).put("race/one", Readable.from([content]), {
              ...text,
              contentType: `text/x-${content.length}-${content[0]}`,
            }),
          ),
        );
        const opened = await store.open("race/one");
        const content = (await buffer((opened as { body: Readable }).body)).toString();
        expect(contents).toContain(content);
        expect(opened?.contentType).toBe(`text/x-${content.length}-${content[0]}`);
        expect(opened?.sizeBytes).toBe(content.length);
      });

      it("never show a reader a body with another's description", async () => {
        if (!under.isExact) return expect(under.other).not.toBe(store);
        const versions = ["a".repeat(1_000), "b".repeat(70_000)];
        const write = (round: number) => {
          const content = versions[round % 2] as string;
          return store.put("race/read", Readable.from([content]), { ...text, contentType: `text/${content[0]}` });
        };
        await write(0);
        let isDone = false;
        const writing = (async () => {
          for (let round = 1; round < 30; round++) await write(round);
          isDone = true;
        })();
        let seen = 0;
        while (!isDone && seen < 1_000) {
          const opened = await under.other.open("race/read");
          const content = (await buffer((opened as { body: Readable }).body)).toString();
          expect([opened?.contentType, opened?.sizeBytes]).toEqual([`text/${content[0]}`, content.length]);
          expect(content).toBe((content[0] as string).repeat(content.length));
          seen++;
        }
        await writing;
        expect(seen).toBeGreaterThan(0);
      });
    });

    describe("lists", () => {
      it("objects under a prefix by key, page by page", async () => {
        const neighbours = ["list/a", "list/a-b", "list/a.b", "list/a0", "list/B"];
        const wanted = ["list/a/b", "list/a/c", "list/b", "list/c/d", ...(under.isExact ? neighbours : [])];
        for (const key of wanted) await put(key, key);
        await put("listed", "not below");
        const sorted = [...wanted].sort();
        expect(await keys("list/")).toEqual(sorted);
        expect(await keys("list")).toEqual([...sorted, "listed"]);
        expect(await keys("list/a/")).toEqual(["list/a/b", "list/a/c"]);
        expect(await keys("list/a")).toEqual(sorted.filter((key) => key.startsWith("list/a")));
        expect(await keys("list/", "list/a/b")).toEqual(sorted.filter((key) => key > "list/a/b"));
        if (!under.isExact) return;
        const paged: string[] = [];
        for (let after: string | undefined; paged.length < 100; ) {
          const page = await keys("list/", after, 3);
          paged.push(...page);
          if (page.length < 3) break;
          after = page.at(-1);
        }
        expect(paged).toEqual(sorted);
        const [first] = await store.list({ prefix: "list/a", limit: 1 });
        expect(first).toMatchObject(
          under.isExact ? { key: "list/a", sizeBytes: 6 } : { key: "list/a/b", sizeBytes: 8 },
        );
        expect(Math.abs((first?.modifiedAt.getTime() ?? 0) - Date.now())).toBeLessThan(60_000);
      });

      it("nothing where nothing is", async () => {
        expect(await keys("nothing/")).toEqual([]);
        expect(await keys("list/", "list/zzz")).toEqual([]);
      });

      it("at least 1 and at most 1,000", async () => {
        for (const limit of [0, 1_001, 1.5])
          await expect(store.list({ prefix: "", limit })).rejects.toMatchObject({ code: "CONFIG_INVALID" });
      });
    });

    it.each([
      "",
      "/",
      "/etc/passwd",
      "a/",
      "a//b",
      "..",
      "../outside",
      "a/../b",
      "a/./b",
      "a\\b",
      "a b",
      "a%2e",
      "ä",
      "a\u0000b",
      "a+",
      "@incoming/x",
      "x".repeat(513),
      "x".repeat(201),
    ])("refuses %j as a key, whatever is asked", async (key) => {
      const refused = { code: "STORAGE_KEY_INVALID" };
      await expect(store.put(key, Readable.from(["x"]), text)).rejects.toMatchObject(refused);
      await expect(store.open(key)).rejects.toMatchObject(refused);
      await expect(store.stat(key)).rejects.toMatchObject(refused);
      await expect(store.remove(key)).rejects.toMatchObject(refused);
    });

    it("takes the longest keys", async () => {
      const key = `${"p".repeat(200)}/${"q".repeat(200)}/${"r".repeat(110)}`;
      await put(key, "long");
      expect(await read(key)).toBe("long");
      expect(await keys(`${"p".repeat(200)}/`)).toEqual([key]);
    });
  });
}
