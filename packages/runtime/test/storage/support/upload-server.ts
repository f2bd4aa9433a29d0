/** A web server with the storage tier's routes, and clients that misbehave on purpose. */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { type AddressInfo, connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { createMetrics } from "../../../src/monitor/index.ts";
import { diskObjects } from "../../../src/storage/drivers/disk-objects.ts";
import {
  acceptUploads,
  type ReceiveUploadOptions,
  receiveUpload,
  sendObject,
  uploadRoute,
} from "../../../src/storage/drivers/fastify-storage.ts";
import type { ObjectInfo, ObjectStore } from "../../../src/storage/object-store.ts";
import { createWebServer } from "../../../src/web/drivers/fastify-web.ts";

export const boundary = "----rungs-test";

export interface UploadServer {
  readonly url: string;
  readonly port: number;
  readonly store: ObjectStore;
  /** What failed for reasons of ours. */
  readonly faults: unknown[];
  /** Objects and unfinished writes, however they are called. */
  stored(): Promise<{ objects: string[]; unfinished: number }>;
  close(): Promise<void>;
}

/** `POST /upload` stores under "uploads/<number>"; `GET /objects/<key>` sends. Other routes take 300 ms of body at most. */
export async function startUploadServer(
  options: Partial<ReceiveUploadOptions<ObjectInfo>> & Pick<ReceiveUploadOptions<ObjectInfo>, "limits">,
  wrap: (store: ObjectStore) => ObjectStore = (store) => store,
): Promise<UploadServer> {
  const directory = await mkdtemp(join(tmpdir(), "rungs-uploads-"));
  const store = wrap(diskObjects({ directory }));
  const faults: unknown[] = [];
  const metrics = createMetrics();
  const web = createWebServer({
    host: "127.0.0.1",
    port: 0,
    bodyLimitBytes: 1_024,
    requestTimeoutMs: 300,
    log: pino({ level: "silent" }),
    metrics,
    answerError: (_request, reply, answer) => {
      if (answer.isFault) faults.push(answer);
      reply.send({ errors: answer.errors });
    },
  });
  let number = 0;
  await web.fastify.register(async (scope) => {
    await acceptUploads(scope);
    scope.post("/upload", uploadRoute(options.limits), async (request) =>
      receiveUpload<ObjectInfo>(request, {
        accept: ["image/png", "image/gif", "video/mp4"],
        store: ({ body, contentType, signal }) =>
          store.put(`uploads/${++number}`, body, { contentType, signal, sizeBytesMax: options.limits.fileBytesMax }),
        discard: ({ key }) => store.remove(key),
        ...options,
      }),
    );
  });
  web.fastify.post("/short", async (request) => ({ got: request.body }));
  web.fastify.get<{ Params: { "*": string } }>("/objects/*", async (request, reply) => {
    const isSent = await sendObject(request, reply, { store, key: request.params["*"] });
    return isSent ? reply : reply.callNotFound();
  });
  const url = await web.listen();
  return {
    url,
    port: (web.fastify.server.address() as AddressInfo).port,
    store,
    faults,
    async stored() {
      const objects = (await store.list({ prefix: "", limit: 1_000 })).map(({ key }) => key);
      const unfinished = (await readdir(join(directory, "@incoming")).catch(() => [])).length;
      return { objects, unfinished };
    },
    async close() {
      await web.close({ graceMs: 100 });
      metrics.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The beginning of a form's file part. */
export function fileHead(name = "picture.png", type = "image/png", field = "file"): string {
  return `--${boundary}\r\nContent-Disposition: form-data; name="${field}"; filename="${name}"\r\nContent-Type: ${type}\r\n\r\n`;
}

export const formEnd = `\r\n--${boundary}--\r\n`;

/** A client that writes its request by hand, piece by piece. */
export interface RawClient {
  readonly socket: Socket;
  /** Sends the head of a chunked POST. */
  begin(path?: string): void;
  /** Sends a chunk of the body. */
  send(bytes: string | Buffer): void;
  /** Ends the body. */
  end(): void;
  /** The status of the answer; undefined when the connection ended without one. */
  status(): Promise<number | undefined>;
  /** Resolves when the server has closed the connection. */
  closed(): Promise<void>;
}

export async function rawClient(port: number): Promise<RawClient> {
  const socket = connect({ port, host: "127.0.0.1" });
  await new Promise((resolve, reject) => socket.once("connect", () => resolve(undefined)).once("error", reject));
  let received = "";
  let isClosed = false;
  const waiters = new Set<() => void>();
  const wake = () => {
    for (const waiter of [...waiters]) waiter();
  };
  socket.on("error", () => {});
  socket.on("data", (bytes) => {
    received += bytes.toString("latin1");
    wake();
  });
  socket.on("close", () => {
    isClosed = true;
    wake();
  });
  const until = (condition: () => boolean) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (!condition()) return;
        waiters.delete(look);
        resolve();
      };
      waiters.add(look);
      look();
    });
  const statusNow = () => {
    const text = /^HTTP\/1\.1 (\d{3})/.exec(received)?.[1];
    return text === undefined ? undefined : Number(text);
  };
  return {
    socket,
    begin(path = "/upload") {
      const type = path === "/short" ? "application/json" : `multipart/form-data; boundary=${boundary}`;
      socket.write(
        `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n`,
      );
    },
    send(bytes) {
      const buffer = Buffer.from(bytes as string);
      if (!socket.destroyed)
        socket.write(Buffer.concat([Buffer.from(`${buffer.length.toString(16)}\r\n`), buffer, Buffer.from("\r\n")]));
    },
    end() {
      if (!socket.destroyed) socket.write("0\r\n\r\n");
    },
    async status() {
      await until(() => statusNow() !== undefined || isClosed);
      return statusNow();
    },
    closed: () => until(() => isClosed),
  };
}
