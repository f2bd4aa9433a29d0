/** Objects as answers of a real server: ranges, conditions, types, and clients that leave. */
import { request as send } from "node:http";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ObjectStore } from "../../src/storage/object-store.ts";
import { startUploadServer, type UploadServer } from "./support/upload-server.ts";

let server: UploadServer;
const bodies: Readable[] = [];

/** Keeps an eye on the streams that the store gives out. */
const watched = (store: ObjectStore): ObjectStore => ({
  put: store.put.bind(store),
  stat: store.stat.bind(store),
  list: store.list.bind(store),
  remove: store.remove.bind(store),
  async open(key, options) {
    const opened = await store.open(key, options);
    if (opened !== undefined) bodies.push(opened.body);
    return opened;
  },
});

beforeAll(async () => {
  server = await startUploadServer({ limits: { fileBytesMax: 1 } }, watched);
  const put = (key: string, content: string | Buffer, contentType: string) =>
    server.store.put(key, Readable.from([content]), { contentType, sizeBytesMax: 100_000_000 });
  await put("video", "0123456789", "video/mp4");
  await put("empty", "", "image/webp");
  await put("page", "<script>alert(1)</script>", "text/html");
  await put("drawing", "<svg/>", "image/svg+xml");
  await put("large", Buffer.alloc(50_000_000), "video/mp4");
});
afterAll(() => server?.close());

const get = (key: string, headers: Record<string, string> = {}, method = "GET") =>
  fetch(`${server.url}/objects/${key}`, { headers, method });

describe("an object", () => {
  it("is sent whole with all that caches and players ask", async () => {
    const answer = await get("video");
    expect([answer.status, await answer.text()]).toEqual([200, "0123456789"]);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "accept-ranges": "bytes",
      "cache-control": "no-cache",
      "content-length": "10",
      "content-type": "video/mp4",
      "cross-origin-resource-policy": "same-origin",
      "x-content-type-options": "nosniff",
      etag: expect.stringMatching(/^"[0-9a-f]+"$/),
      "last-modified": expect.stringMatching(/GMT$/),
    });
    expect(answer.headers.get("content-disposition")).toBeNull();
  });

  it("is sent in part", async () => {
    const answer = await get("video", { range: "bytes=2-4" });
    expect([answer.status, await answer.text()]).toEqual([206, "234"]);
    expect([answer.headers.get("content-range"), answer.headers.get("content-length")]).toEqual(["bytes 2-4/10", "3"]);
    expect(await (await get("video", { range: "bytes=-3" })).text()).toBe("789");
    const none = await get("video", { range: "bytes=10-" });
    expect([none.status, none.headers.get("content-range"), none.headers.get("content-length")]).toEqual([
      416,
      "bytes */10",
      "0",
    ]);
  });

  it("is not sent again to who has it", async () => {
    const etag = (await get("video")).headers.get("etag") as string;
    const answer = await get("video", { "if-none-match": etag, range: "bytes=0-1" });
    expect([answer.status, await answer.text(), answer.headers.get("etag")]).toEqual([304, "", etag]);
    expect((await get("video", { "if-range": etag, range: "bytes=0-1" })).status).toBe(206);
    expect((await get("video", { "if-range": '"older"', range: "bytes=0-1" })).status).toBe(200);
  });

  it("is described by HEAD as GET would send it", async () => {
    const answer = await get("video", {}, "HEAD");
    expect([answer.status, answer.headers.get("content-length"), answer.headers.get("content-type")]).toEqual([
      200,
      "10",
      "video/mp4",
    ]);
  });

  it("may be empty", async () => {
    const answer = await get("empty");
    expect([answer.status, answer.headers.get("content-length"), await answer.text()]).toEqual([200, "0", ""]);
    expect((await get("empty", { range: "bytes=0-" })).status).toBe(416);
  });

  it.each(["page", "drawing"])("that a browser would run is saved and not shown: %s", async (key) => {
    const answer = await get(key);
    expect(answer.headers.get("content-type")).toBe("application/octet-stream");
    expect(answer.headers.get("content-disposition")).toBe("attachment");
    expect(answer.headers.get("content-security-policy")).toMatch(/sandbox/);
    await answer.body?.cancel();
  });

  it("that is not there is not found", async () => {
    expect((await get("nothing")).status).toBe(404);
  });

  it("is let go when its reader leaves", async () => {
    bodies.length = 0;
    await new Promise<void>((resolve, reject) => {
      const asked = send(`${server.url}/objects/large`, (answer) => {
        answer.once("data", () => {
          asked.destroy();
          resolve();
        });
      });
      asked.on("error", (error) =>
        (error as NodeJS.ErrnoException).code === "ECONNRESET" ? resolve() : reject(error),
      );
      asked.end();
    });
    await expect.poll(() => bodies.map((body) => body.destroyed)).toEqual([true]);
  });
});
