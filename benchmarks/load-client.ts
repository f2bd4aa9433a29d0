/**
 * A small HTTP/1.1 load client on raw keep-alive sockets.
 *
 * It costs a fraction of what a full client costs, so that on two cores the servers are measured and not the client.
 * It understands answers with Content-Length only, which is all these benchmarks ask for.
 */
import { connect, type Socket } from "node:net";
import { createHistogram, type RecordableHistogram } from "node:perf_hooks";

/** One request as bytes; built once. */
export function requestBytes(options: {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly port: number;
  readonly headers?: Readonly<Record<string, string>>;
}): Buffer {
  const headers = { host: `127.0.0.1:${options.port}`, ...options.headers };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const body = options.method === "POST" ? "content-length: 0\r\n" : "";
  return Buffer.from(`${options.method} ${options.path} HTTP/1.1\r\n${lines.join("")}${body}\r\n`);
}

/** What a run saw. Latencies in milliseconds. */
export interface LoadResult {
  readonly requests: number;
  readonly failures: number;
  readonly perSecond: number;
  /** Of those without failures, answers other than 2xx. */
  readonly goodPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

interface LoadOptions {
  readonly port: number;
  /** Called for each request; gives its bytes. */
  readonly next: () => Buffer;
  readonly connections: number;
  readonly durationMs: number;
  /** Told of each answer: its request as `next` gave it, its status (0: the connection broke), and its time in ms. */
  readonly onAnswer?: (answer: { readonly request: Buffer; readonly status: number; readonly ms: number }) => void;
}

/**
 * Closed loop: each connection sends its next request when the last is answered. Measures throughput at saturation. Ends after
 * `requestsMax`, if that is given; a connection that broke sends no more.
 */
export async function closedLoop(options: LoadOptions & { readonly requestsMax?: number }): Promise<LoadResult> {
  const run = new Run(options);
  const connections = await openConnections(options, run);
  const started = performance.now();
  const until = started + options.durationMs;
  let left = options.requestsMax ?? Number.POSITIVE_INFINITY;
  await Promise.all(
    connections.map(async (connection) => {
      while (left-- > 0 && connection.isOpen && performance.now() < until) {
        await connection.send(options.next(), performance.now());
      }
    }),
  );
  return run.result(performance.now() - started, connections);
}

/**
 * Open loop: requests start at a fixed rate whether or not earlier ones are answered; latency counts from the intended
 * start, so that a stall is seen by every request it delays.
 */
export async function openLoop(
  options: LoadOptions & {
    readonly ratePerSecond: number;
    /** Requests that may wait for a free connection, as their senders still wait for earlier answers; others are left out. Default all. */
    readonly waitingMax?: number;
  },
): Promise<LoadResult> {
  const { waitingMax = Number.POSITIVE_INFINITY } = options;
  const run = new Run(options);
  const connections = await openConnections(options, run);
  const free = [...connections];
  const waiting: number[] = [];
  const started = performance.now();
  const total = Math.floor((options.ratePerSecond * options.durationMs) / 1_000);
  const pump = () => {
    while (free.length > 0 && waiting.length > 0) {
      const connection = free.pop() as Connection;
      const intended = waiting.shift() as number;
      void connection.send(options.next(), intended).then(() => {
        free.push(connection);
        pump();
      });
    }
  };
  for (let sent = 0; sent < total; ) {
    const due = Math.min(total, Math.floor(((performance.now() - started) * options.ratePerSecond) / 1_000) + 1);
    for (; sent < due; sent++) waiting.push(started + (sent * 1_000) / options.ratePerSecond);
    pump();
    waiting.splice(waitingMax);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const giveUp = performance.now() + 5_000;
  while (free.length < connections.length && performance.now() < giveUp)
    await new Promise((resolve) => setTimeout(resolve, 5));
  return run.result(performance.now() - started, connections);
}

class Run {
  requests = 0;
  failures = 0;
  private readonly onAnswer: LoadOptions["onAnswer"];

  constructor({ onAnswer }: LoadOptions) {
    this.onAnswer = onAnswer;
  }

  readonly latency: RecordableHistogram = createHistogram({ figures: 3 });

  record(request: Buffer, status: number, sinceMs: number): void {
    this.requests++;
    if (status < 200 || status > 299) this.failures++;
    const ms = performance.now() - sinceMs;
    this.latency.record(Math.max(1, Math.round(ms * 1_000)));
    this.onAnswer?.({ request, status, ms });
  }

  result(elapsedMs: number, connections: readonly Connection[]): LoadResult {
    for (const connection of connections) connection.close();
    return {
      requests: this.requests,
      failures: this.failures,
      perSecond: (this.requests * 1_000) / elapsedMs,
      goodPerSecond: ((this.requests - this.failures) * 1_000) / elapsedMs,
      p50Ms: this.latency.percentile(50) / 1_000,
      p99Ms: this.latency.percentile(99) / 1_000,
    };
  }
}

function openConnections(options: LoadOptions, run: Run): Promise<Connection[]> {
  return Promise.all(Array.from({ length: options.connections }, () => Connection.open(options.port, run)));
}

/** One keep-alive connection with at most one request under way. */
class Connection {
  private readonly socket: Socket;
  private readonly run: Run;
  isOpen = true;
  private received: Buffer = Buffer.alloc(0);
  private intended = 0;
  private request: Buffer = Buffer.alloc(0);
  private done: (() => void) | undefined;

  static open(port: number, run: Run): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: "127.0.0.1", noDelay: true });
      socket.once("error", reject);
      socket.once("connect", () => resolve(new Connection(socket, run)));
    });
  }

  private constructor(socket: Socket, run: Run) {
    this.socket = socket;
    this.run = run;
    socket.removeAllListeners("error");
    socket.on("data", (chunk: Buffer) => this.onData(chunk));
    socket.on("error", () => this.finish(0));
    socket.on("close", () => {
      this.isOpen = false;
      this.finish(0);
    });
  }

  send(bytes: Buffer, intended: number): Promise<void> {
    this.intended = intended;
    this.request = bytes;
    return new Promise((resolve) => {
      this.done = resolve;
      this.socket.write(bytes);
    });
  }

  close(): void {
    this.socket.removeAllListeners("close");
    this.socket.destroy();
  }

  private onData(chunk: Buffer): void {
    this.received = this.received.length === 0 ? chunk : Buffer.concat([this.received, chunk]);
    const head = this.received.indexOf("\r\n\r\n");
    if (head < 0) return;
    const headers = this.received.toString("latin1", 0, head).toLowerCase();
    const end = bodyEnd(this.received, head + 4, headers);
    if (end === undefined || this.received.length < end) return;
    this.received = Buffer.alloc(0);
    this.finish(Number(headers.slice(9, 12)));
  }

  private finish(status: number): void {
    const { done } = this;
    if (done === undefined) return;
    this.done = undefined;
    this.run.record(this.request, status, this.intended);
    done();
  }
}

/** Where the body that begins at `start` ends; undefined while that is not known yet. */
function bodyEnd(received: Buffer, start: number, headers: string): number | undefined {
  const length = /\r\ncontent-length: (\d+)/.exec(headers)?.[1];
  if (length !== undefined) return start + Number(length);
  // A cache that is still being given the body has no length to tell.
  if (!headers.includes("\r\ntransfer-encoding: chunked")) throw new Error(`Answer without a length: ${headers}`);
  for (let at = start; ; ) {
    const line = received.indexOf("\r\n", at);
    if (line < 0) return undefined;
    const size = Number.parseInt(received.toString("latin1", at, line), 16);
    at = line + 2 + size + 2;
    if (size === 0) return at;
    if (at > received.length) return undefined;
  }
}
