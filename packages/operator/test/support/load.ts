/**
 * Steady load on keep-alive connections: requests begin at a fixed rate whether or not earlier ones are answered. A connection that the
 * server closes between two requests is opened anew, as every client does; whatever happens to a request is counted.
 */
import { connect, type Socket } from "node:net";

/** A request that was not answered by 2xx. */
export interface Failure {
  readonly id: string;
  readonly method: "GET" | "POST";
  /** Status of the answer, or what became of the connection. */
  readonly reason: string;
  /** Whether its connection had carried a request before. */
  readonly isReused: boolean;
  readonly atMs: number;
}

export interface LoadResult {
  readonly gets: number;
  readonly posts: number;
  readonly failures: readonly Failure[];
  /** Pids that answered reads. */
  readonly pids: ReadonlySet<number>;
  readonly latencyMaxMs: number;
}

export interface RunningLoad {
  /** Stops and waits for what is under way. */
  stop(): Promise<LoadResult>;
}

/** Sends requests, every third a POST to `/write?id=N`, the others GETs of `/read`. With `isKeyed`, writes carry a key. */
export function startLoad(options: {
  readonly port: number;
  /** Default 150. */
  readonly ratePerSecond?: number;
  /** Default 24. */
  readonly connections?: number;
  readonly isKeyed?: boolean;
  /** Default "/read"; answers with its `pid`. */
  readonly readPath?: string;
  /** Default `/write?id=ID`. */
  readonly writePath?: (id: string) => string;
}): RunningLoad {
  const { port, ratePerSecond = 150, connections = 24, isKeyed = false } = options;
  const { readPath = "/read", writePath = (id: string) => `/write?id=${id}` } = options;
  const failures: Failure[] = [];
  const pids = new Set<number>();
  const counts = { GET: 0, POST: 0 };
  let latencyMaxMs = 0;
  const started = performance.now();
  const run = `${process.pid}-${Math.round(started)}`;
  const free = Array.from({ length: connections }, () => new Connection(port));
  let sent = 0;
  let underWay = 0;
  const sendOne = async (connection: Connection, intended: number) => {
    const number = sent++;
    const method = number % 3 === 0 ? "POST" : "GET";
    const id = `${run}-${number}`;
    const { isReused } = connection;
    underWay++;
    const key = isKeyed ? id : undefined;
    const answer = await connection.send(method, method === "POST" ? writePath(id) : readPath, key);
    underWay--;
    counts[method]++;
    latencyMaxMs = Math.max(latencyMaxMs, performance.now() - intended);
    if (!/^2\d\d/.test(answer.status)) {
      failures.push({ id, method, reason: answer.status, isReused, atMs: Math.round(performance.now() - started) });
    } else if (method === "GET") pids.add((JSON.parse(answer.body) as { pid: number }).pid);
    free.push(connection);
  };
  let due = 0;
  const timer = setInterval(() => {
    const now = performance.now();
    while (due < ((now - started) * ratePerSecond) / 1_000 && free.length > 0) {
      const intended = started + (due * 1_000) / ratePerSecond;
      due++;
      void sendOne(free.shift() as Connection, intended);
    }
  }, 2);
  return {
    async stop() {
      clearInterval(timer);
      const until = performance.now() + 20_000;
      while (underWay > 0 && performance.now() < until) await new Promise((resolve) => setTimeout(resolve, 10));
      for (const connection of free) connection.close();
      if (counts.GET === 0 || counts.POST === 0) throw new Error("The load made no requests, so it shows nothing.");
      return { gets: counts.GET, posts: counts.POST, failures, pids, latencyMaxMs };
    },
  };
}

interface Answer {
  readonly status: string;
  readonly body: string;
}

class Connection {
  isReused = false;
  private readonly port: number;
  private socket: Socket | undefined;
  private received = Buffer.alloc(0);
  private done: ((answer: Answer) => void) | undefined;

  constructor(port: number) {
    this.port = port;
  }

  send(method: string, path: string, key?: string): Promise<Answer> {
    return new Promise((resolve) => {
      this.done = resolve;
      const socket = this.socket ?? this.open();
      const length = method === "POST" ? "content-length: 0\r\n" : "";
      const keyed = key === undefined ? "" : `idempotency-key: ${key}\r\n`;
      socket.write(`${method} ${path} HTTP/1.1\r\nhost: 127.0.0.1:${this.port}\r\n${length}${keyed}\r\n`);
    });
  }

  close(): void {
    this.socket?.destroy();
  }

  private open(): Socket {
    const socket = connect({ port: this.port, host: "127.0.0.1", noDelay: true });
    this.socket = socket;
    this.isReused = false;
    this.received = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => this.onData(socket, chunk));
    const gone = (reason: string) => {
      if (this.socket !== socket) return;
      this.socket = undefined;
      this.finish({ status: reason, body: "" });
    };
    socket.on("error", (error) => gone((error as NodeJS.ErrnoException).code ?? error.message));
    socket.on("end", () => gone("closed"));
    socket.on("close", () => gone("closed"));
    return socket;
  }

  private onData(socket: Socket, chunk: Buffer): void {
    this.received = Buffer.concat([this.received, chunk]);
    const head = this.received.indexOf("\r\n\r\n");
    if (head < 0) return;
    const headers = this.received.toString("latin1", 0, head).toLowerCase();
    const length = Number(/\r\ncontent-length: (\d+)/.exec(headers)?.[1] ?? Number.NaN);
    if (Number.isNaN(length)) throw new Error(`An answer without a length: ${headers}`);
    if (this.received.length < head + 4 + length) return;
    const body = this.received.toString("utf8", head + 4, head + 4 + length);
    this.received = this.received.subarray(head + 4 + length);
    this.isReused = true;
    if (/\r\nconnection: close/.test(headers)) {
      this.socket = undefined;
      socket.destroy();
    }
    this.finish({ status: headers.slice(9, 12), body });
  }

  private finish(answer: Answer): void {
    const { done } = this;
    this.done = undefined;
    done?.(answer);
  }
}
