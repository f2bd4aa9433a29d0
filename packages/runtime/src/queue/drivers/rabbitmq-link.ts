/** A connection to RabbitMQ that is opened when it is first used, and calls on it that end in time. */
import { ConfigError, RungsError, UnavailableError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import type { RabbitmqAddress } from "./rabbitmq-address.ts";
import { type AmqpChannel, type AmqpConnection, amqpConnection } from "./rabbitmq-client.ts";

/** Longest wait for a connection and a channel on it. */
export const connectMs = 3_000;

/** Longest wait for the answer to one command. */
export const commandMs = 10_000;

const closeMs = 2_000;

export class RabbitmqLink {
  private readonly address: RabbitmqAddress;
  private readonly name: string;
  private readonly log: Logger;
  private opening: Promise<AmqpConnection> | undefined;
  private trouble: unknown;
  private blockedFor: string | undefined;
  private isClosed = false;

  constructor(options: { readonly address: RabbitmqAddress; readonly name: string; readonly log: Logger }) {
    this.address = options.address;
    this.name = options.name;
    this.log = options.log;
  }

  /** Opens a channel. Raises `BROKER_UNREACHABLE`. */
  async channel(withinMs = connectMs): Promise<AmqpChannel> {
    if (this.isClosed) throw brokerError("it was closed here", undefined);
    const connection = await this.connection();
    const acquired = connection.acquire({ emitErrors: true });
    try {
      const channel = await within(acquired, withinMs);
      channel.on("error", (error) =>
        this.log.warn({ connection: this.name, error }, "RabbitMQ closed a channel; it is opened anew"),
      );
      return channel;
    } catch (error) {
      // One that comes after all is not wanted any more.
      acquired.then(closeQuietly, () => {});
      throw this.failure("open a channel", error);
    }
  }

  /** Does something on a channel of its own, within `commandMs`. Raises `BROKER_UNREACHABLE`; `CONFIG_INVALID` when it was refused. */
  async use<R>(what: string, work: (channel: AmqpChannel) => Promise<R>): Promise<R> {
    const channel = await this.channel();
    try {
      return await within(work(channel), commandMs);
    } catch (error) {
      throw this.failure(what, error);
    } finally {
      closeQuietly(channel);
    }
  }

  /** What the caller gets when the broker did not do `what`. */
  failure(what: string, error: unknown): RungsError {
    if (error instanceof RungsError) return error;
    const code = codeOf(error);
    const message = error instanceof Error ? error.message : String(error);
    if (code === "PRECONDITION_FAILED") {
      const hint = "What is there was declared with other settings; see docs/operating/rabbitmq.md.";
      return new ConfigError("CONFIG_INVALID", `RabbitMQ refused to ${what}: ${message}. ${hint}`, { cause: error });
    }
    if (code === "ACCESS_REFUSED") {
      const hint = "Its user needs configure, write and read; see docs/operating/rabbitmq.md.";
      return new ConfigError("CONFIG_INVALID", `RabbitMQ refused to ${what}: ${message}. ${hint}`, { cause: error });
    }
    if (this.blockedFor !== undefined) return brokerError(`it takes no messages (${this.blockedFor})`, error);
    const cause = this.trouble ?? error;
    const isRefused = codeOf(cause) === "ACCESS_REFUSED";
    return brokerError(
      isRefused ? "it refused the login" : `it did not ${what} in time, or the connection broke`,
      cause,
    );
  }

  /** Closes it, in 2 s at most; channels that are still open are closed with it. */
  async close(): Promise<void> {
    this.isClosed = true;
    const connection = await this.opening?.catch(() => undefined);
    if (connection === undefined) return;
    await within(connection.close(), closeMs).catch(() => connection.unsafeDestroy());
  }

  private connection(): Promise<AmqpConnection> {
    this.opening ??= this.open().catch((error: unknown) => {
      this.opening = undefined;
      throw error;
    });
    return this.opening;
  }

  private async open(): Promise<AmqpConnection> {
    const { log, name } = this;
    const connection = await amqpConnection(this.address, name);
    connection.on("error", (error) => {
      this.trouble = error;
      this.blockedFor = undefined;
      if (!this.isClosed) log.warn({ connection: name, error }, "the connection to RabbitMQ is lost; trying again");
    });
    connection.on("connection", () => {
      if (this.trouble !== undefined) log.info({ connection: name }, "RabbitMQ is connected again");
      this.trouble = undefined;
    });
    connection.on("connection.blocked", (reason) => {
      this.blockedFor = reason;
      log.warn({ connection: name, reason }, "RabbitMQ takes no messages: it is low on memory or disk");
    });
    connection.on("connection.unblocked", () => {
      this.blockedFor = undefined;
      log.info({ connection: name }, "RabbitMQ takes messages again");
    });
    return connection;
  }
}

/** Closes it some time; nothing is to be learnt from how that ends. */
export function closeQuietly(channel: AmqpChannel): void {
  void channel.close().catch(() => {});
}

/** Raises when the work takes longer. */
export async function within<R>(work: Promise<R>, ms: number): Promise<R> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`RabbitMQ did not answer within ${ms} ms`)), ms);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
    work.catch(() => {});
  }
}

/** The server's word for it, such as "NOT_FOUND". */
export function codeOf(error: unknown): string | undefined {
  const code = (error as { readonly code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : undefined;
}

function brokerError(why: string, cause: unknown): UnavailableError {
  // What is published twice is handled once, so that every call may be repeated.
  return new UnavailableError("BROKER_UNREACHABLE", `RabbitMQ cannot be used now: ${why}.`, { canRetry: true, cause });
}
