/**
 * One connection to one Redis server, kept up.
 *
 * States: *down* (from the start, and after each loss), *open*, *closed*. While down it looks for the server anew each time
 * (through Sentinels, where there are any, so that a fail-over leads to the new master), connects within `connectMs`, and
 * waits between tries: 25 ms, doubling up to 1 s, with jitter.
 *
 * The package's own reconnection is not used, for three reasons: its time limit of a command ends once the command is
 * written, so that a server that hangs is waited for without end; it has no notion of a connection that takes commands and
 * answers none, which is what a frozen machine or a cut cable looks like; and it comes back to the same address.
 *
 * - A command gets its reply within `commandMs` or fails. When nothing at all came since it was sent, the connection is
 *   given up: replies come in order, so none of those behind it can come either.
 * - A `PING` every `pingMs` finds a dead connection that nobody uses.
 * - Where the server can change, it is looked for every `pingMs` too: a master that was replaced may not know of it yet.
 * - Commands wait for a connection only in the first `commandMs` after it was lost, at most 1,000 of them; later ones fail
 *   at once until it is back.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "../kernel/clock.ts";
import type { Logger } from "../kernel/log.ts";
import type { Random } from "../kernel/random.ts";
import type { ServerNode } from "../kernel/server-address.ts";
import { type RedisSocketClient, type RedisTls, redisSocketClient } from "./load-redis.ts";
import type { RedisLogin } from "./redis-address.ts";
import { LinkLostError, messageOf, NotConnectedError } from "./redis-errors.ts";

/** Bounds of a connection. */
export interface LinkTimes {
  /** Of a command, with its way there and back. */
  readonly commandMs: number;
  /** Of a connection with its login. */
  readonly connectMs: number;
  /** Between signs of life on a connection. */
  readonly pingMs: number;
}

/** What a link needs to know. */
export interface LinkOptions {
  /** For messages. */
  readonly name: string;
  /** Where the server is; asked before each try. */
  find(): Promise<ServerNode>;
  /** Whether {@link LinkOptions.find} may come to another answer while the connection is open. */
  readonly canMove: boolean;
  /** Does what must precede the connection's use; when it fails, the connection is given up. */
  prepare?(client: RedisSocketClient, link: RedisLink): Promise<void>;
  readonly login: RedisLogin;
  readonly tls: RedisTls | undefined;
  readonly database: number;
  readonly times: LinkTimes;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
}

const waitersMax = 1_000;
const retryFirstMs = 25;
const retryMaxMs = 1_000;

interface Waiter {
  resolve(client: RedisSocketClient): void;
  reject(error: Error): void;
}

export class RedisLink {
  /** Where it is, or was, connected. */
  node: ServerNode | undefined;
  private readonly options: LinkOptions;
  private client: RedisSocketClient | undefined;
  private lose: ((error: Error) => void) | undefined;
  private readonly waiters = new Set<Waiter>();
  private readonly stopping = new AbortController();
  private readonly running: Promise<void>;
  private downSince: number;
  private repliedAt = 0;
  private lastError: Error = new Error("it has not been connected yet");

  constructor(options: LinkOptions) {
    this.options = options;
    this.downSince = options.clock.monotonic();
    this.running = this.run();
  }

  get isOpen(): boolean {
    return this.client !== undefined;
  }

  /** Why it is down. */
  get problem(): Error {
    return this.lastError;
  }

  /** Sends a command; raises {@link LinkLostError} when no reply came, and the server's own error as it is. */
  async send(args: readonly string[], deadlineAt: number): Promise<unknown> {
    const client = this.client ?? (await this.opened(deadlineAt));
    return this.exchange(client, () => client.sendCommand(args), deadlineAt);
  }

  /** Sends two commands with nothing between them, and gives the second's reply. */
  async sendPair(first: readonly string[], second: readonly string[], deadlineAt: number): Promise<unknown> {
    const client = this.client ?? (await this.opened(deadlineAt));
    const both = () => Promise.all([client.sendCommand(first), client.sendCommand(second)]);
    return ((await this.exchange(client, both, deadlineAt)) as unknown[])[1];
  }

  /** The connection, once it is open. */
  async opened(deadlineAt: number): Promise<RedisSocketClient> {
    const { clock, times } = this.options;
    if (this.client !== undefined) return this.client;
    const now = clock.monotonic();
    if (this.stopping.signal.aborted) throw new NotConnectedError("it was closed");
    if (now - this.downSince > times.commandMs || this.waiters.size >= waitersMax) throw this.downError();
    let timer: NodeJS.Timeout | undefined;
    let waiter: Waiter | undefined;
    try {
      return await new Promise<RedisSocketClient>((resolve, reject) => {
        waiter = { resolve, reject };
        this.waiters.add(waiter);
        timer = setTimeout(() => reject(this.downError()), Math.max(0, deadlineAt - now));
      });
    } finally {
      clearTimeout(timer);
      if (waiter !== undefined) this.waiters.delete(waiter);
    }
  }

  /** Runs an exchange on the connection under the deadline. */
  async exchange<T>(client: RedisSocketClient, work: () => Promise<T>, deadlineAt: number): Promise<T> {
    const { clock } = this.options;
    const sentAt = clock.monotonic();
    let isReplied = false;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const giveUp = () => {
        if (isReplied) return;
        const silentMs = Math.round(clock.monotonic() - Math.max(this.repliedAt, sentAt));
        const error = new LinkLostError(`nothing came for ${silentMs} ms`);
        if (this.client === client && this.repliedAt < sentAt) this.drop(error);
        reject(error);
      };
      // After a long pause of this process timers come first: what has arrived meanwhile is read before it is missed.
      timer = setTimeout(() => setImmediate(giveUp), Math.max(1, deadlineAt - sentAt));
    });
    const replied = work();
    const mark = () => {
      isReplied = true;
      this.repliedAt = clock.monotonic();
    };
    // An error is a reply too. When it is late, nobody waits for its end any more.
    replied.then(mark, mark);
    try {
      return await Promise.race([replied, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Gives the connection up; it is looked for anew. */
  drop(error: Error): void {
    // At once, so that nothing more is sent by it.
    if (this.client !== undefined) this.downSince = this.options.clock.monotonic();
    this.client = undefined;
    this.lose?.(error);
  }

  /** Ends it for good. */
  async close(): Promise<void> {
    this.stopping.abort();
    this.drop(new LinkLostError("it was closed"));
    await this.running;
  }

  private async run(): Promise<void> {
    const { clock, log, name } = this.options;
    let tries = 0;
    while (!this.stopping.signal.aborted) {
      const openedAt = clock.monotonic();
      try {
        await this.keepOpen();
      } catch (error) {
        this.lastError = error instanceof Error ? error : new Error(String(error));
      }
      if (this.stopping.signal.aborted) break;
      tries = clock.monotonic() - openedAt > retryMaxMs * 2 ? 0 : tries + 1;
      log.debug({ redis: name, tries, reason: this.lastError.message }, "a connection to Redis is tried again");
      await this.pause(tries);
    }
    for (const { reject } of this.waiters) reject(new NotConnectedError("it was closed"));
  }

  /** Connects and comes back when the connection is lost, always by an error. */
  private async keepOpen(): Promise<never> {
    const { login, tls, database, times, clock, log, name } = this.options;
    const node = await within(this.options.find(), times.connectMs * 4, "it was not found");
    this.node = node;
    const client = await redisSocketClient({ node, login, tls, database, connectMs: times.connectMs });
    let ping: NodeJS.Timeout | undefined;
    const lost = new Promise<never>((_, reject) => {
      this.lose = reject;
    });
    lost.catch(() => {});
    const lose = (detail: unknown) => this.drop(asLost(detail));
    client.on("error", lose);
    client.on("end", () => lose("the connection was closed"));
    try {
      const ready = client.connect().then(() => this.options.prepare?.(client, this));
      await Promise.race([within(ready, times.connectMs * 2, "the connection was not ready"), lost]);
      this.client = client;
      log.info({ redis: name, host: node.host, port: node.port }, "connected to Redis");
      for (const { resolve } of this.waiters) resolve(client);
      ping = setInterval(() => {
        const asked = this.exchange(client, () => client.sendCommand(["PING"]), clock.monotonic() + times.commandMs);
        asked.catch(() => {});
        if (this.options.canMove) void this.watch(node);
      }, times.pingMs);
      ping.unref();
      return await lost;
    } finally {
      clearInterval(ping);
      if (ping !== undefined && !this.stopping.signal.aborted) {
        log.warn({ redis: name }, "the connection to Redis was lost");
      }
      this.lose = undefined;
      client.destroy();
    }
  }

  /** Nobody who could tell is no reason to leave. */
  private async watch(node: ServerNode): Promise<void> {
    const found = await this.options.find().catch(() => node);
    if (this.node !== node || (found.host === node.host && found.port === node.port)) return;
    this.drop(new LinkLostError("another server has taken over"));
  }

  private async pause(tries: number): Promise<void> {
    const longest = Math.min(retryMaxMs, retryFirstMs * 2 ** Math.min(tries, 10));
    const ms = longest * (0.5 + 0.5 * this.options.random.next());
    await sleep(ms, undefined, { signal: this.stopping.signal, ref: false }).catch(() => {});
  }

  private downError(): NotConnectedError {
    return new NotConnectedError(`there is no connection (${messageOf(this.lastError)})`, { cause: this.lastError });
  }
}

function asLost(detail: unknown): LinkLostError {
  return new LinkLostError(messageOf(detail), { cause: detail });
}

async function within<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new LinkLostError(`${what} within ${ms} ms`)), ms);
  });
  work.catch(() => {});
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}
