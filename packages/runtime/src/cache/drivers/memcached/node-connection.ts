/**
 * One connection to one memcached, kept up.
 *
 * - Commands are written as they come and answered in order (a pipeline), at most `commandsMax` at once.
 * - A command is answered within `commandMs` or fails; then the connection is given up, for none of those behind it can be
 *   answered either.
 * - It is *up* only once the server has answered on it: a frozen machine's kernel goes on accepting connections.
 * - While down it is tried again after 50 ms, doubling up to 1 s. Commands do not wait for that: they fail at once.
 */
import { createConnection, type Socket } from "node:net";
import type { Random } from "../../../kernel/random.ts";
import { type MetaReply, MetaReplyReader } from "./meta-reply.ts";

/** Settings of {@link NodeConnection}. */
export interface NodeConnectionOptions {
  readonly host: string;
  readonly port: number;
  readonly commandMs: number;
  readonly commandsMax: number;
  readonly random: Random;
}

interface Waiting {
  resolve(reply: MetaReply): void;
  reject(error: Error): void;
  readonly deadlineAt: number;
}

const retryFirstMs = 50;
const retryMaxMs = 1_000;

export class NodeConnection {
  readonly counters = { commands: 0, failures: 0, connections: 0 };
  private readonly options: NodeConnectionOptions;
  private socket: Socket | undefined;
  private isReady = false;
  private isClosed = false;
  private reader = new MetaReplyReader();
  private waiting: Waiting[] = [];
  private retryMs = retryFirstMs;
  private retryTimer: NodeJS.Timeout | undefined;
  private watch: NodeJS.Timeout | undefined;
  private chunks: (string | Buffer)[] = [];
  private problem = "it has not been connected yet";

  constructor(options: NodeConnectionOptions) {
    this.options = options;
    this.connect();
  }

  get isUp(): boolean {
    return this.isReady;
  }

  get name(): string {
    return `${this.options.host}:${this.options.port}`;
  }

  /** Sends a command line, with a block of data or without. Raises when it is down, or no reply comes in time. */
  async send(line: string, data?: Buffer): Promise<MetaReply> {
    this.counters.commands++;
    try {
      if (!this.isReady) throw new Error(`memcached ${this.name} is not connected: ${this.problem}`);
      return await this.write(line, data);
    } catch (error) {
      this.counters.failures++;
      throw error;
    }
  }

  close(): void {
    this.isClosed = true;
    clearTimeout(this.retryTimer);
    this.lose("it was closed");
  }

  private connect(): void {
    const { host, port, commandMs } = this.options;
    const socket = createConnection({ host, port, noDelay: true, keepAlive: true });
    this.socket = socket;
    this.reader = new MetaReplyReader();
    socket.setTimeout(0);
    socket.on("connect", () => {
      // `mn` is answered by MN: only a server that works is up.
      this.write("mn").then(
        () => {
          if (this.socket !== socket) return;
          this.counters.connections++;
          this.isReady = true;
          this.retryMs = retryFirstMs;
        },
        () => {},
      );
    });
    socket.on("data", (bytes) => this.receive(socket, bytes));
    socket.on("error", (error) => this.socket === socket && this.lose(error.message));
    socket.on("close", () => this.socket === socket && this.lose("the server closed it"));
    const late = setTimeout(() => {
      if (this.socket === socket && !this.isReady) this.lose(`it was not ready within ${2 * commandMs} ms`);
    }, 2 * commandMs);
    late.unref();
    socket.unref();
  }

  private write(line: string, data?: Buffer): Promise<MetaReply> {
    const { commandMs, commandsMax } = this.options;
    if (this.waiting.length >= commandsMax) {
      return Promise.reject(new Error(`${commandsMax} commands wait for memcached ${this.name}, the limit`));
    }
    return new Promise((resolve, reject) => {
      this.waiting.push({ resolve, reject, deadlineAt: performance.now() + commandMs });
      if (this.chunks.length === 0) queueMicrotask(() => this.flush());
      this.chunks.push(`${line}\r\n`);
      if (data !== undefined) this.chunks.push(data, "\r\n");
      this.socket?.ref();
      this.watchFirst();
    });
  }

  /** What was written in one go leaves in one packet. */
  private flush(): void {
    const { socket, chunks } = this;
    this.chunks = [];
    if (socket === undefined || chunks.length === 0) return;
    socket.cork();
    for (const chunk of chunks) socket.write(chunk);
    socket.uncork();
  }

  private receive(socket: Socket, bytes: Buffer): void {
    if (this.socket !== socket) return;
    try {
      for (const reply of this.reader.read(bytes)) this.waiting.shift()?.resolve(reply);
    } catch (error) {
      this.lose(error instanceof Error ? error.message : String(error));
    }
    if (this.waiting.length === 0) socket.unref();
  }

  /** One timer for all: replies come in order, so the first to wait is the first to be late. */
  private watchFirst(): void {
    if (this.watch !== undefined) return;
    const [first] = this.waiting;
    if (first === undefined) return;
    this.watch = setTimeout(
      () => {
        // After a pause of this process timers come first: what has arrived meanwhile is read before it is missed.
        setImmediate(() => {
          this.watch = undefined;
          const isLate = this.waiting[0] !== undefined && this.waiting[0].deadlineAt <= performance.now();
          if (isLate) this.lose(`it did not answer within ${this.options.commandMs} ms`);
          else this.watchFirst();
        });
      },
      Math.max(1, first.deadlineAt - performance.now()),
    );
    this.watch.unref();
  }

  private lose(why: string): void {
    const { socket, waiting } = this;
    this.problem = why;
    this.isReady = false;
    this.socket = undefined;
    this.waiting = [];
    this.chunks = [];
    socket?.destroy();
    for (const { reject } of waiting) reject(new Error(`memcached ${this.name} was lost: ${why}`));
    if (this.isClosed || this.retryTimer !== undefined) return;
    const pauseMs = this.retryMs * (0.5 + 0.5 * this.options.random.next());
    this.retryMs = Math.min(retryMaxMs, this.retryMs * 2);
    this.retryTimer = setTimeout(() => {
      this.retryTimer = undefined;
      this.connect();
    }, pauseMs);
    this.retryTimer.unref();
  }
}
