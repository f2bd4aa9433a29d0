/** Uploads over real connections: good clients, slow ones, ones that lie, ones that stop. */
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { fileHead, formEnd, rawClient, startUploadServer, type UploadServer } from "./support/upload-server.ts";

/** The smallest PNG there is: one pixel. */
const png = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);
const pngOf = (bytes: number) => Buffer.concat([png, Buffer.alloc(bytes - png.length, "x")]);

let server: UploadServer | undefined;
afterEach(async () => {
  await server?.close();
  server = undefined;
});

const start = async (...options: Parameters<typeof startUploadServer>) => {
  server = await startUploadServer(...options);
  return server;
};

async function upload(
  to: UploadServer,
  file: Buffer | string,
  { name = "picture.png", type = "image/png", field = "file", fields = {} as Record<string, string> } = {},
) {
  const form = new FormData();
  for (const [key, value] of Object.entries(fields)) form.append(key, value);
  form.append(field, new Blob([new Uint8Array(Buffer.from(file as string))], { type }), name);
  const answer = await fetch(`${to.url}/upload`, { method: "POST", body: form });
  const body = (await answer.json()) as {
    stored: { key: string; contentType: string; sizeBytes: number };
    fields: Record<string, string>;
    errors: { file: string[] };
  };
  return { status: answer.status, ...body };
}

const nothing = { objects: [], unfinished: 0 };

describe("an upload", () => {
  it("is stored as it came, with its kind by content and the form's fields", async () => {
    const to = await start({ limits: { fileBytesMax: 5_000_000 } });
    const file = pngOf(3_000_000);
    const answer = await upload(to, file, { fields: { alt: "a picture", purpose: "image" } });
    expect(answer.status).toBe(200);
    expect(answer.stored).toMatchObject({ contentType: "image/png", sizeBytes: file.length });
    expect(answer.fields).toEqual({ alt: "a picture", purpose: "image" });
    const opened = await to.store.open(answer.stored.key);
    expect((await buffer((opened as { body: Readable }).body)).equals(file)).toBe(true);
    expect(to.faults).toEqual([]);
  });

  it("of one byte less than its head's sample, and of exactly the limit, is whole", async () => {
    const to = await start({ limits: { fileBytesMax: 4_101 } });
    for (const bytes of [png.length, 4_099, 4_100, 4_101])
      expect((await upload(to, pngOf(bytes))).stored).toMatchObject({ sizeBytes: bytes });
    expect((await upload(to, pngOf(4_102))).status).toBe(413);
    expect((await to.stored()).objects).toHaveLength(4);
  });

  it("longer than the limit is refused, whether its length was declared or not, and nothing is left", async () => {
    const to = await start({ limits: { fileBytesMax: 100_000 } });
    const declared = await upload(to, pngOf(2_000_000));
    expect([declared.status, declared.errors]).toEqual([413, { file: ["is over 100 kB, the limit"] }]);
    const client = await rawClient(to.port);
    client.begin();
    client.send(fileHead());
    client.send(png);
    for (let sent = 0; sent < 40; sent++) client.send(Buffer.alloc(10_000));
    expect(await client.status()).toBe(413);
    client.socket.destroy();
    expect(await to.stored()).toEqual(nothing);
    expect(to.faults).toEqual([]);
  });

  it("is never held whole: while the store takes nothing, the client cannot send on", async () => {
    let goOn: () => void = () => {};
    const released = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const to = await start({ limits: { fileBytesMax: 100_000_000, idleMaxMs: 300 } }, (store) => ({
      open: store.open.bind(store),
      stat: store.stat.bind(store),
      list: store.list.bind(store),
      remove: store.remove.bind(store),
      put: async (key, body, options) => {
        await released;
        return store.put(key, body, options);
      },
    }));
    const client = await rawClient(to.port);
    client.begin();
    client.send(fileHead());
    client.send(png);
    for (let sent = 0; sent < 80; sent++) client.send(Buffer.alloc(1_000_000));
    const taken = () => client.socket.bytesWritten - client.socket.writableLength;
    let before = -1;
    await expect
      .poll(
        () => {
          const isStill = taken() === before;
          before = taken();
          return isStill;
        },
        { interval: 500, timeout: 10_000 },
      )
      .toBe(true);
    // What both kernels hold of a connection, and the buffers of streams.
    expect(taken()).toBeLessThan(30_000_000);
    goOn();
    client.send(formEnd);
    client.end();
    expect(await client.status()).toBe(200);
    client.socket.destroy();
    expect(await to.store.stat("uploads/1")).toMatchObject({ sizeBytes: 80_000_000 + png.length });
  });
});

describe("the kind of an upload", () => {
  it.each([
    ["a page that calls itself a picture", "<!doctype html><script>alert(1)</script>", "image/png"],
    ["a drawing, which may hold scripts", '<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', "image/png"],
    ["a program", Buffer.concat([Buffer.from("\x7fELF\x02\x01\x01", "latin1"), Buffer.alloc(100)]), "image/png"],
    ["a kind that is not accepted", "%PDF-1.7\n%....\n", "image/png"],
    ["plain text", "just text", "image/png"],
  ])("%s is refused by its content", async (_, content, type) => {
    const to = await start({ limits: { fileBytesMax: 10_000 } });
    const answer = await upload(to, content, { type });
    expect(answer.status).toBe(415);
    expect(answer.errors.file[0]).toMatch(/accepted: image\/png/);
    expect(await to.stored()).toEqual(nothing);
  });

  it("is not what name and declaration say", async () => {
    const to = await start({ limits: { fileBytesMax: 10_000 } });
    const answer = await upload(to, png, { name: "../../evil.html", type: "text/html" });
    expect([answer.status, answer.stored.contentType, answer.stored.key]).toEqual([200, "image/png", "uploads/1"]);
  });

  it("of a file that is a picture and a script is that of a picture, and it is served as one", async () => {
    const to = await start({ limits: { fileBytesMax: 10_000 } });
    const polyglot = Buffer.from("GIF89a=1;alert(document.domain);/*<script>alert(1)</script>*/");
    const answer = await upload(to, polyglot, { name: "x.js", type: "text/javascript" });
    expect(answer.stored.contentType).toBe("image/gif");
    const served = await fetch(`${to.url}/objects/${answer.stored.key}`);
    expect(served.headers.get("content-type")).toBe("image/gif");
    expect(served.headers.get("x-content-type-options")).toBe("nosniff");
    expect(served.headers.get("content-security-policy")).toMatch(/sandbox/);
  });
});

describe("a form", () => {
  it("without a file, or with an empty one, is refused", async () => {
    const to = await start({ limits: { fileBytesMax: 10_000 } });
    expect((await upload(to, png, { field: "other" })).status).toBe(400);
    expect((await upload(to, "")).status).toBe(400);
    expect(await to.stored()).toEqual(nothing);
  });

  it("that is none is refused", async () => {
    const to = await start({ limits: { fileBytesMax: 10_000 } });
    const json = await fetch(`${to.url}/upload`, {
      method: "POST",
      body: "{}",
      headers: { "content-type": "application/json" },
    });
    expect(json.status).toBe(415);
    const noBoundary = await fetch(`${to.url}/upload`, {
      method: "POST",
      body: "x",
      headers: { "content-type": "multipart/form-data" },
    });
    expect(noBoundary.status).toBe(400);
    expect(to.faults).toEqual([]);
  });

  it("with a second file is refused, and the first is taken back", async () => {
    const to = await start({ limits: { fileBytesMax: 10_000 } });
    const form = new FormData();
    form.append("file", new Blob([png]), "1.png");
    form.append("file", new Blob([png]), "2.png");
    const answer = await fetch(`${to.url}/upload`, { method: "POST", body: form });
    expect([400, 413]).toContain(answer.status);
    expect(await to.stored()).toEqual(nothing);
  });

  it("with too many or too long fields is refused", async () => {
    const to = await start({ limits: { fileBytesMax: 10_000, partsMax: 4, fieldBytesMax: 100 } });
    const many = Object.fromEntries(Array.from({ length: 6 }, (_, index) => [`field${index}`, "x"]));
    expect((await upload(to, png, { fields: many })).status).toBe(413);
    expect((await upload(to, png, { fields: { long: "x".repeat(200) } })).status).toBe(413);
    expect(await to.stored()).toEqual(nothing);
  });

  it("is judged by its fields before the file is read", async () => {
    const to = await start({
      limits: { fileBytesMax: 10_000 },
      before: (fields) => {
        if (fields["secret"] !== "right") throw Object.assign(new Error("no"), { statusCode: 403 });
      },
    });
    expect((await upload(to, png, { fields: { secret: "wrong" } })).status).toBe(403);
    expect((await upload(to, png)).status).toBe(403);
    expect((await upload(to, png, { fields: { secret: "right" } })).status).toBe(200);
    expect((await to.stored()).objects).toHaveLength(1);
  });
});

describe("a client", () => {
  it("that takes longer than short requests may, but sends steadily, is served", async () => {
    const to = await start({ limits: { fileBytesMax: 1_000_000, timeMaxMs: 20_000, idleMaxMs: 1_000 } });
    const client = await rawClient(to.port);
    client.begin();
    client.send(fileHead());
    client.send(png);
    for (let piece = 0; piece < 15; piece++) {
      await sleep(100);
      client.send(Buffer.alloc(10_000));
    }
    client.send(formEnd);
    client.end();
    expect(await client.status()).toBe(200);
    client.socket.destroy();
    expect(await to.store.stat("uploads/1")).toMatchObject({ sizeBytes: png.length + 150_000 });
  });

  it("that falls silent is cut, and nothing is left", async () => {
    const to = await start({ limits: { fileBytesMax: 1_000_000, timeMaxMs: 20_000, idleMaxMs: 200 } });
    const client = await rawClient(to.port);
    client.begin();
    client.send(fileHead());
    client.send(pngOf(50_000));
    expect(await client.status()).toBe(408);
    await client.closed();
    await expect.poll(() => to.stored()).toEqual(nothing);
    expect(to.faults).toEqual([]);
  });

  it("that falls silent within the form's head, or after the file, is cut", async () => {
    const to = await start({ limits: { fileBytesMax: 1_000_000, timeMaxMs: 20_000, idleMaxMs: 200 } });
    for (const sent of [[fileHead().slice(0, 30)], [fileHead(), png, "\r\n--"]]) {
      const client = await rawClient(to.port);
      client.begin();
      for (const piece of sent) client.send(piece);
      expect(await client.status()).toBe(408);
      await client.closed();
    }
    await expect.poll(() => to.stored()).toEqual(nothing);
  });

  it("that drips byte by byte is cut at the whole time's limit", async () => {
    const to = await start({ limits: { fileBytesMax: 1_000_000, timeMaxMs: 1_000, idleMaxMs: 500 } });
    const client = await rawClient(to.port);
    client.begin();
    client.send(fileHead());
    client.send(png);
    const drip = setInterval(() => client.send("x"), 50);
    expect(await client.status()).toBe(408);
    await client.closed();
    clearInterval(drip);
    await expect.poll(() => to.stored()).toEqual(nothing);
  });

  it("that goes away in the middle leaves nothing", async () => {
    const to = await start({ limits: { fileBytesMax: 1_000_000 } });
    const client = await rawClient(to.port);
    client.begin();
    client.send(fileHead());
    client.send(pngOf(200_000));
    await expect.poll(async () => (await to.stored()).unfinished).toBe(1);
    client.socket.resetAndDestroy();
    await expect.poll(() => to.stored()).toEqual(nothing);
    expect(to.faults).toEqual([]);
  });

  it("whose form ends early is refused", async () => {
    const to = await start({ limits: { fileBytesMax: 1_000_000 } });
    const client = await rawClient(to.port);
    client.begin();
    client.send(fileHead());
    client.send(png);
    client.end();
    expect(await client.status()).toBe(400);
    client.socket.destroy();
    await expect.poll(() => to.stored()).toEqual(nothing);
  });

  it("is not taken for silent when it is the store that is slow", async () => {
    const slow = async function* (body: Readable) {
      for await (const chunk of body) {
        await sleep(60);
        yield chunk;
      }
    };
    const to = await start({ limits: { fileBytesMax: 3_000_000, timeMaxMs: 20_000, idleMaxMs: 100 } }, (store) => ({
      open: store.open.bind(store),
      stat: store.stat.bind(store),
      list: store.list.bind(store),
      remove: store.remove.bind(store),
      put: (key, body, options) => store.put(key, Readable.from(slow(body)), options),
    }));
    expect((await upload(to, pngOf(1_500_000))).status).toBe(200);
  });

  it("of another route is held to the server's own limit", async () => {
    const to = await start({ limits: { fileBytesMax: 1_000_000 } });
    const client = await rawClient(to.port);
    client.begin("/short");
    client.send('{"a":');
    expect(await client.status()).toBe(408);
    await client.closed();
    const quick = await fetch(`${to.url}/short`, {
      method: "POST",
      body: '{"a":1}',
      headers: { "content-type": "application/json" },
    });
    expect(await quick.json()).toEqual({ got: { a: 1 } });
  });
});
