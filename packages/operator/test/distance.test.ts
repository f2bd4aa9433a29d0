/** The distance between regions: how much later things arrive, that they arrive as they were sent, and how much at once. */
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { choosePorts } from "../src/stack/process/ports.ts";
import { distanceComponent } from "../src/stack/regions/distance-proxy.ts";
import { type DistanceRelay, startDistanceRelay } from "../src/stack/regions/distance-relay.ts";

const open: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0).reverse()) await close();
});

/** A server and the relay before it; gives the port of the relay. */
async function behind(
  handler: (socket: Socket) => void,
  { roundTripMs, bytesMax }: { readonly roundTripMs: number; readonly bytesMax?: number },
): Promise<number> {
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => {});
    handler(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  open.push(async () => server.close());
  const { port } = server.address() as AddressInfo;
  return relayTo(port, { roundTripMs, ...(bytesMax === undefined ? {} : { bytesMax }) });
}

async function relayTo(
  to: number | undefined,
  settings: { readonly roundTripMs: number; readonly bytesMax?: number },
): Promise<number> {
  const relay: DistanceRelay = await startDistanceRelay({ ...settings, routes: [{ name: "server", port: 0, to }] });
  open.push(() => relay.stop());
  return relay.ports[0] as number;
}

function client(port: number): Socket {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  socket.on("error", () => {});
  open.push(async () => socket.destroy());
  return socket;
}

async function answerTo(socket: Socket, text: string): Promise<number> {
  const since = performance.now();
  socket.write(text);
  let got = "";
  while (got.length < text.length) got += String((await once(socket, "data"))[0]);
  expect(got).toBe(text);
  return performance.now() - since;
}

/** Whatever ends it. */
const closed = (socket: Socket) => new Promise<void>((resolve) => socket.once("close", () => resolve()));
const echo = (socket: Socket) => socket.pipe(socket);

describe("the distance", () => {
  it("is the round trip that was asked for, and one more before a connection's first bytes", async () => {
    const port = await behind(echo, { roundTripMs: 60 });
    const socket = client(port);
    const first = await answerTo(socket, "first");
    expect(first).toBeGreaterThanOrEqual(119);
    const times: number[] = [];
    for (let index = 0; index < 9; index++) times.push(await answerTo(socket, `question ${index}`));
    for (const ms of times) expect(ms).toBeGreaterThanOrEqual(59);
    // The machine may be busy; most of the time it is not.
    expect(times.sort((one, other) => one - other)[4]).toBeLessThan(120);
  });

  it("can be measured at a port that sends back what it gets", async () => {
    const socket = client(await relayTo(undefined, { roundTripMs: 40 }));
    expect(await answerTo(socket, "out")).toBeGreaterThanOrEqual(79);
    expect(await answerTo(socket, "and back")).toBeGreaterThanOrEqual(39);
  });

  it("keeps order and every byte, in both directions at once, on many connections", async () => {
    const port = await behind(echo, { roundTripMs: 20 });
    const hashes = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const socket = client(port);
        const sent = randomBytes(300_000);
        const got: Buffer[] = [];
        socket.on("data", (part: Buffer) => got.push(part));
        for (let at = 0; at < sent.length; at += 7_001) {
          if (!socket.write(sent.subarray(at, at + 7_001))) await once(socket, "drain");
        }
        socket.end();
        await once(socket, "end");
        const of = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex");
        return of(Buffer.concat(got)) === of(sent);
      }),
    );
    expect(hashes).toEqual(Array.from({ length: 20 }, () => true));
  });

  it("lets one side end while the other goes on", async () => {
    const port = await behind(
      (socket) => {
        socket.resume();
        // Answers only when it has heard the end.
        socket.once("end", () => socket.end("after your end"));
      },
      { roundTripMs: 30 },
    );
    const socket = client(port);
    const since = performance.now();
    socket.end("a question");
    expect(String((await once(socket, "data"))[0])).toBe("after your end");
    await once(socket, "end");
    expect(performance.now() - since).toBeGreaterThanOrEqual(59);
  });

  it("carries a reset as one, and a refused connection", async () => {
    const port = await behind((socket) => socket.once("data", () => socket.resetAndDestroy()), { roundTripMs: 20 });
    const socket = client(port);
    const errors: unknown[] = [];
    socket.on("error", (error: NodeJS.ErrnoException) => errors.push(error.code));
    socket.write("a question");
    await closed(socket);
    expect(errors).toEqual(["ECONNRESET"]);
    // Nobody listens there any more.
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port: free } = server.address() as AddressInfo;
    await new Promise((resolve) => server.close(resolve));
    const refused = client(await relayTo(free, { roundTripMs: 20 }));
    refused.on("error", (error: NodeJS.ErrnoException) => errors.push(error.code));
    await closed(refused);
    expect(errors).toEqual(["ECONNRESET", "ECONNRESET"]);
  });

  it("lets a sender wait whose receiver does not read, and holds no more than its bound", async () => {
    let received: Socket | undefined;
    const port = await behind(
      (socket) => {
        received = socket.pause();
      },
      { roundTripMs: 10, bytesMax: 256 * 1024 },
    );
    const socket = client(port);
    const part = Buffer.alloc(64 * 1024);
    let sent = 0;
    let isStuck = false;
    // What the kernel's buffers and the bound take, and then nothing more: nobody reads for half a second.
    while (!isStuck && sent < 512 * 1024 * 1024) {
      sent += part.length;
      if (socket.write(part)) continue;
      isStuck = await Promise.race([
        once(socket, "drain").then(() => false),
        new Promise<true>((resolve) => setTimeout(resolve, 500, true)),
      ]);
    }
    expect(isStuck).toBe(true);
    let got = 0;
    received?.on("data", (bytes: Buffer) => {
      got += bytes.length;
    });
    received?.resume();
    socket.end();
    await once(received as Socket, "end");
    expect(got).toBe(sent);
  });

  it("carries as much at once as copying a database needs", async () => {
    const bytes = 64 * 1024 * 1024;
    const port = await behind((socket) => socket.once("data", () => socket.end(Buffer.alloc(bytes))), {
      roundTripMs: 80,
    });
    const socket = client(port);
    const since = performance.now();
    let got = 0;
    socket.on("data", (part: Buffer) => {
      got += part.length;
    });
    socket.write("all of it");
    await once(socket, "end");
    expect(got).toBe(bytes);
    // 4 MiB on their way at once and 40 ms each way are 100 MB a second; a busy machine has a tenth of that.
    expect(performance.now() - since).toBeLessThan(6_500);
  });

  it("is a part of the stack, ready when a word has come back, and gone when it is stopped", async () => {
    const folder = await mkdtemp(join(tmpdir(), "rungs-distance-"));
    open.push(() => rm(folder, { recursive: true, force: true }));
    const server = createServer({ allowHalfOpen: true }, echo);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    open.push(async () => server.close());
    const ports = {
      ...(await choosePorts(["distance", "eu-postgres-0-far"], {})),
      "eu-postgres-0": (server.address() as AddressInfo).port,
    } as Record<string, number>;
    const component = distanceComponent({
      ...{ servers: ["eu-postgres-0"], ports, roundTripMs: 50, folder, logFolder: folder },
    });
    open.push(() => component.stop());
    await component.start(AbortSignal.timeout(30_000));
    const [report] = component.processes();
    expect(report).toMatchObject({ name: "distance", role: "distance", state: "ready", port: ports["distance"] });
    expect(await answerTo(client(ports["eu-postgres-0-far"] as number), "over the ocean")).toBeGreaterThanOrEqual(99);
    await component.stop();
    expect(component.processes()).toEqual([]);
  });
});
