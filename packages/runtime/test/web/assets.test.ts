/** Static files: names by content, the right bytes in the right encoding, and never a file that was not meant. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { brotliDecompressSync, gunzipSync } from "node:zlib";
import Fastify, { type FastifyInstance } from "fastify";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { type Assets, openAssets } from "../../src/web/assets.ts";
import { serveAssets } from "../../src/web/drivers/fastify-assets.ts";

const css = `body { background: url("pic.png") }\n${"p { margin: 0 }\n".repeat(100)}`;

describe("assets", () => {
  let folder: string;
  let assets: Assets;
  let server: FastifyInstance;
  let port: number;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "rungs-assets-"));
    await mkdir(join(folder, "public", "sub"), { recursive: true });
    await writeFile(join(folder, "public", "app.css"), css);
    await writeFile(join(folder, "public", "pic.png"), Buffer.from([1, 2, 3, 4, 5, 6, 7, 8]));
    await writeFile(join(folder, "public", "sub", "x.js"), "export {}");
    await writeFile(join(folder, "secret.txt"), "secret");
    assets = await openAssets({ folders: [pathToFileURL(`${folder}/public/`)] });
    server = Fastify();
    serveAssets(server, assets);
    await server.listen({ host: "127.0.0.1", port: 0 });
    port = (server.server.address() as { port: number }).port;
  });
  afterAll(async () => {
    await server.close();
    await rm(folder, { recursive: true });
  });

  /** A request whose path is sent as it stands. */
  const get = (path: string, headers: Record<string, string> = {}, method = "GET") =>
    new Promise<{ status: number; headers: Record<string, unknown>; body: Buffer }>((resolve, reject) => {
      request({ host: "127.0.0.1", port, path, headers, method }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () =>
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }),
        );
      })
        .on("error", reject)
        .end();
    });

  it("are named by their content and said to be immutable", async () => {
    expect(assets.url("app.css")).toMatch(/^\/assets\/app\.[0-9a-f]{10}\.css$/);
    expect(assets.url("sub/x.js")).toMatch(/^\/assets\/sub\/x\.[0-9a-f]{10}\.js$/);
    const { status, headers } = await get(assets.url("pic.png"));
    expect([status, headers["cache-control"], headers["content-type"]]).toEqual([
      200,
      "public, max-age=31536000, immutable",
      "image/png",
    ]);
    expect(() => assets.url("ap.css")).toThrow(/There is no asset "ap.css". Known: .*app\.css/);
  });

  it("refer to each other by hashed names", async () => {
    const name = assets.url("pic.png").slice("/assets/".length);
    expect((await get(assets.url("app.css"))).body.toString()).toContain(`url("${name}")`);
  });

  it("come compressed as the client asks, once they are compressed", async () => {
    await vi.waitFor(async () =>
      expect((await get(assets.url("app.css"), { "accept-encoding": "br" })).headers["content-encoding"]).toBe("br"),
    );
    const plain = (await get(assets.url("app.css"))).body.toString();
    const brotli = await get(assets.url("app.css"), { "accept-encoding": "gzip, br;q=0.9" });
    expect([brotli.headers["content-encoding"], brotliDecompressSync(brotli.body).toString()]).toEqual(["br", plain]);
    const gzip = await get(assets.url("app.css"), { "accept-encoding": "br;q=0, *" });
    expect([gzip.headers["content-encoding"], gunzipSync(gzip.body).toString()]).toEqual(["gzip", plain]);
    const none = await get(assets.url("app.css"), { "accept-encoding": "identity" });
    expect([none.headers["content-encoding"], none.headers["vary"]]).toEqual([undefined, "accept-encoding"]);
  });

  it("answer conditional and partial requests", async () => {
    const { headers } = await get(assets.url("pic.png"));
    const same = await get(assets.url("pic.png"), { "if-none-match": String(headers["etag"]) });
    expect([same.status, same.body.length]).toEqual([304, 0]);
    for (const [range, status, bytes] of [
      ["bytes=2-3", 206, [3, 4]],
      ["bytes=6-", 206, [7, 8]],
      ["bytes=-3", 206, [6, 7, 8]],
      ["bytes=0-99", 206, [1, 2, 3, 4, 5, 6, 7, 8]],
      ["bytes=8-", 416, []],
      ["bytes=5-2", 200, [1, 2, 3, 4, 5, 6, 7, 8]],
      ["lines=1-2", 200, [1, 2, 3, 4, 5, 6, 7, 8]],
    ] as const) {
      const answer = await get(assets.url("pic.png"), { range });
      expect([range, answer.status, [...answer.body]]).toEqual([range, status, [...bytes]]);
    }
    const head = await get(assets.url("pic.png"), {}, "HEAD");
    expect([head.status, head.body.length, head.headers["content-length"]]).toEqual([200, 0, "8"]);
  });

  it.each([
    "/assets/../secret.txt",
    "/assets/..%2fsecret.txt",
    "/assets/%2e%2e/secret.txt",
    "/assets/..\\secret.txt",
    "/assets//etc/passwd",
    "/assets/%00",
    "/assets/app.css",
    "/assets/app.0000000000.css",
    "/assets/sub",
    "/assets/",
    `/assets/${"a".repeat(3_000)}`,
    "/assets/__proto__",
  ])("give nothing for %s", async (path) => {
    const { status, body } = await get(path);
    expect([400, 404, 414]).toContain(status);
    expect(body.toString()).not.toContain("secret\n");
  });

  it("are bounded", async () => {
    await expect(openAssets({ folders: [pathToFileURL(`${folder}/public/`)], bytesMax: 100 })).rejects.toThrow(
      /over 100 bytes/,
    );
  });
});
