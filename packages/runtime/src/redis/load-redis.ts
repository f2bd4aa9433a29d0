/** The package redis, loaded when it is first needed, and typed as the part that is used of it. */
import { ConfigError } from "../kernel/errors.ts";
import type { ServerNode } from "../kernel/server-address.ts";
import type { RedisLogin } from "./redis-address.ts";

/** Hears the messages of a channel. */
export type ChannelListener = (message: string, channel: string) => void;

/** One connection as the package makes it. */
export interface RedisSocketClient {
  connect(): Promise<unknown>;
  /** Ends it at once; what waits for a reply is rejected. */
  destroy(): void;
  sendCommand(args: readonly string[]): Promise<unknown>;
  subscribe(channels: string | string[], listener: ChannelListener): Promise<void>;
  unsubscribe(channels: string | string[], listener: ChannelListener): Promise<void>;
  sSubscribe(channels: string | string[], listener: ChannelListener): Promise<void>;
  sUnsubscribe(channels: string | string[], listener: ChannelListener): Promise<void>;
  on(event: "error" | "end" | "terminated" | "sharded-channel-moved", listener: (detail: unknown) => void): unknown;
}

/** TLS of a connection. */
export interface RedisTls {
  /** Certificates that sign the servers', in PEM; default those Node trusts. */
  readonly ca?: string | undefined;
}

/** How to open one connection. */
export interface SocketOptions {
  readonly node: ServerNode;
  readonly login: RedisLogin;
  readonly tls: RedisTls | undefined;
  readonly database: number;
  readonly connectMs: number;
}

/** Commands that may wait on one connection; one more is refused. */
const commandsMax = 10_000;

/** Makes a connection that is not open yet and never comes back by itself. Raises `PACKAGE_MISSING` without the package. */
export async function redisSocketClient(options: SocketOptions): Promise<RedisSocketClient> {
  const { createClient } = await import("redis").catch((error: unknown) => {
    const message = "Redis needs the package redis, which cannot be loaded. Install it: npm install redis";
    throw new ConfigError("PACKAGE_MISSING", message, { cause: error });
  });
  const { node, login, tls, database, connectMs } = options;
  const secure = tls === undefined ? {} : { tls: true as const, ...(tls.ca === undefined ? {} : { ca: tls.ca }) };
  return createClient({
    socket: { ...node, ...secure, connectTimeout: connectMs, reconnectStrategy: false },
    ...login,
    database,
    disableOfflineQueue: true,
    commandsQueueMaxLength: commandsMax,
    maintNotifications: "disabled",
    // One command less that a user must be allowed.
    disableClientInfo: true,
    // The package's own limit ends when a command has been written; ours is of the whole way, see redis-link.ts.
    commandOptions: { timeout: 0 },
  }) as object as RedisSocketClient;
}
