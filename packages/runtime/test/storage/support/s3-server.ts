/**
 * A real S3 server on this machine (s3rver) behind a way that can fail: it answers by errors, breaks off, or falls silent.
 * The server does not know how to abort uploads in parts, so the way keeps the account of those.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse, request as send } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import S3rver from "@20minutes/s3rver";

/** What the way does to a request instead of passing it on. */
export type Fault = "answer 503" | "answer 403" | "reset" | "silence" | "cut the body";

/** One request as it came by. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly bodyBytes: number;
}

/** The server and the way to it. */
export interface TestS3 {
  readonly endpoint: string;
  readonly credentials: { bucket: string; region: string; accessKeyId: string; secretAccessKey: string };
  readonly seen: SeenRequest[];
  /** Uploads in parts that were neither completed nor aborted. */
  readonly unfinished: Set<string>;
  /** The next requests that fit meet this fault, so often. */
  fail(fault: Fault, times: number, fits?: (request: Omit<SeenRequest, "bodyBytes">) => boolean): void;
  close(): Promise<void>;
}

export async function startTestS3(): Promise<TestS3> {
  const directory = await mkdtemp(join(tmpdir(), "rungs-s3-"));
  const server = new S3rver({
    address: "127.0.0.1",
    port: 0,
    silent: true,
    directory,
    configureBuckets: [{ name: "objects", configs: [] }],
  });
  const { port } = await server.run();
  const seen: SeenRequest[] = [];
  const unfinished = new Set<string>();
  let faults: { fault: Fault; times: number; fits: (request: Omit<SeenRequest, "bodyBytes">) => boolean }[] = [];

  const way = createServer((incoming, outgoing) => {
    const url = new URL(incoming.url ?? "/", "http://s3.invalid");
    const asked = { method: incoming.method ?? "", path: url.pathname, query: url.searchParams };
    const next = faults.find(({ fits }) => fits(asked));
    if (next !== undefined) {
      next.times--;
      faults = faults.filter(({ times }) => times > 0);
    }
    const note = (bodyBytes: number) => seen.push({ ...asked, bodyBytes });
    if (next !== undefined && next.fault !== "cut the body") return suffer(next.fault, incoming, outgoing, note);
    const uploadId = url.searchParams.get("uploadId");
    if (asked.method === "DELETE" && uploadId !== null) {
      note(0);
      unfinished.delete(uploadId);
      outgoing.writeHead(204).end();
      return;
    }
    passOn(incoming, outgoing, {
      port,
      isCut: next !== undefined,
      note,
      onAnswer: (text) => {
        const begun = /<UploadId>([^<]+)<\/UploadId>/.exec(text)?.[1];
        if (begun !== undefined && url.searchParams.has("uploads")) unfinished.add(begun);
        if (asked.method === "POST" && uploadId !== null && text.includes("<ETag>")) unfinished.delete(uploadId);
      },
    });
  });
  await new Promise<void>((resolve) => way.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(way.address() as AddressInfo).port}`,
    credentials: { bucket: "objects", region: "eu-west-1", accessKeyId: "S3RVER", secretAccessKey: "S3RVER" },
    seen,
    unfinished,
    fail(fault, times, fits = () => true) {
      faults.push({ fault, times, fits });
    },
    async close() {
      way.closeAllConnections();
      way.close();
      server.httpServer.closeAllConnections();
      await server.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

function suffer(
  fault: Fault,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  note: (bytes: number) => void,
): void {
  let bytes = 0;
  incoming.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
  });
  incoming.on("error", () => {});
  if (fault === "reset") {
    note(0);
    incoming.socket.resetAndDestroy();
    return;
  }
  incoming.on("end", () => {
    note(bytes);
    if (fault === "silence") return;
    const status = fault === "answer 503" ? 503 : 403;
    const code = status === 503 ? "SlowDown" : "SignatureDoesNotMatch";
    outgoing.writeHead(status, { "content-type": "application/xml" }).end(`<Error><Code>${code}</Code></Error>`);
  });
}

function passOn(
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  {
    port,
    isCut,
    note,
    onAnswer,
  }: { port: number; isCut: boolean; note: (bytes: number) => void; onAnswer: (text: string) => void },
): void {
  let bytes = 0;
  const { method, url, headers } = incoming;
  const onward = send({ host: "127.0.0.1", port, method, path: url, headers }, (answer) => {
    note(bytes);
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    let text = "";
    let sent = 0;
    answer.on("data", (chunk: Buffer) => {
      if (text.length < 10_000) text += chunk.toString("latin1");
      if (isCut && sent > 0) return outgoing.destroy();
      sent += chunk.length;
      outgoing.write(chunk);
    });
    answer.on("end", () => {
      onAnswer(text);
      outgoing.end();
    });
    answer.on("error", () => outgoing.destroy());
    outgoing.on("close", () => answer.destroy());
  });
  onward.on("error", () => outgoing.destroy());
  incoming.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    onward.write(chunk);
  });
  incoming.on("end", () => onward.end());
  incoming.on("error", () => onward.destroy());
}
