/** The package rabbitmq-client, loaded when it is first needed, and typed as the part that is used of it. */
import { ConfigError } from "../../kernel/errors.ts";
import type { RabbitmqAddress } from "./rabbitmq-address.ts";

/** Arguments of a declaration, in RabbitMQ's words. */
export type AmqpArguments = Readonly<Record<string, string | number | boolean>>;

/** A message as it comes out of a queue. The package has parsed a JSON body; one that is no JSON is left as bytes. */
export interface AmqpMessage {
  readonly deliveryTag: number;
  readonly redelivered: boolean;
  readonly messageId?: string | undefined;
  readonly type?: string | undefined;
  readonly headers?: Readonly<Record<string, unknown>> | undefined;
  readonly body: unknown;
}

/** What goes with a published body. */
export interface AmqpEnvelope {
  readonly exchange: string;
  readonly routingKey: string;
  readonly mandatory?: boolean;
  readonly durable?: boolean;
  readonly messageId?: string;
  readonly type?: string;
  readonly contentType?: string;
  readonly headers?: Readonly<Record<string, unknown>>;
}

/** A channel. One command at a time. Its calls are rejected once it is closed; `basicAck` and `basicNack` throw then. */
export interface AmqpChannel {
  readonly active: boolean;
  close(): Promise<void>;
  confirmSelect(): Promise<void>;
  /** Resolves with the server's confirm. A mandatory message without a queue is confirmed too, after "basic.return". */
  basicPublish(envelope: AmqpEnvelope, body: Buffer): Promise<void>;
  basicQos(options: { readonly prefetchCount: number }): Promise<void>;
  basicConsume(
    options: { readonly queue: string; readonly noAck?: boolean; readonly exclusive?: boolean },
    listener: (message: AmqpMessage) => void,
  ): Promise<unknown>;
  basicGet(options: { readonly queue: string }): Promise<AmqpMessage | undefined>;
  basicAck(options: { readonly deliveryTag: number }): void;
  basicNack(options: { readonly deliveryTag: number; readonly requeue: boolean }): void;
  exchangeDeclare(options: {
    readonly exchange: string;
    readonly type: string;
    readonly durable: boolean;
    readonly arguments?: AmqpArguments;
  }): Promise<unknown>;
  queueDeclare(options: {
    readonly queue: string;
    readonly passive?: boolean;
    readonly durable?: boolean;
    readonly exclusive?: boolean;
    readonly autoDelete?: boolean;
    readonly arguments?: AmqpArguments;
  }): Promise<{ readonly queue: string; readonly messageCount: number }>;
  queueBind(options: {
    readonly queue: string;
    readonly exchange: string;
    readonly routingKey?: string;
  }): Promise<unknown>;
  on(event: "close", listener: () => void): unknown;
  /** It was closed by the server, and that is not the answer to a call. */
  on(event: "error", listener: (error: unknown) => void): unknown;
  on(event: "basic.cancel", listener: (consumerTag: string) => void): unknown;
  on(event: "basic.return", listener: (message: { readonly messageId?: string }) => void): unknown;
}

/** A connection that comes back by itself, though not its channels. */
export interface AmqpConnection {
  /** Opens a channel; waits for a connection that is not there. `emitErrors`: tells of its own errors itself. */
  acquire(options: { readonly emitErrors: true }): Promise<AmqpChannel>;
  /** Waits for its channels to be closed. */
  close(): Promise<void>;
  /** Ends it at once. */
  unsafeDestroy(): void;
  on(event: "connection" | "connection.unblocked", listener: () => void): unknown;
  on(event: "connection.blocked", listener: (reason: string) => void): unknown;
  /** Told once when a connection is lost or cannot be made, not for each further try. */
  on(event: "error", listener: (error: unknown) => void): unknown;
}

/** Waits between tries to connect, in ms: the first and the longest. */
const retryMs = { first: 100, max: 2_000 };

/**
 * Seconds; two missed ones end a connection, on either side. So a process that froze loses its share after 10 to 15 s. RabbitMQ's manual
 * takes less than 5 for too little (https://www.rabbitmq.com/docs/heartbeats).
 */
const heartbeatSeconds = 5;

/** Begins to connect. `name` is what RabbitMQ's tools show. Raises `PACKAGE_MISSING` without the package. */
export async function amqpConnection(address: RabbitmqAddress, name: string): Promise<AmqpConnection> {
  const { Connection } = await import("rabbitmq-client").catch((error: unknown) => {
    const message =
      "RabbitMQ needs the package rabbitmq-client, which cannot be loaded. Install it: npm install rabbitmq-client";
    throw new ConfigError("PACKAGE_MISSING", message, { cause: error });
  });
  const { hosts, isTls, ca, username, password, vhost } = address;
  return new Connection({
    hosts: [...hosts],
    ...(isTls ? { tls: ca === undefined ? true : { ca } } : {}),
    username,
    password,
    vhost,
    connectionName: name,
    heartbeat: heartbeatSeconds,
    connectionTimeout: 5_000,
    retryLow: retryMs.first,
    retryHigh: retryMs.max,
    noDelay: true,
  }) as object as AmqpConnection;
}
