/** Shards with followers for the tests of replication. */
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import { type ReplicaServer, startTestReplicas, type TestReplicas } from "@rungs/contract/test-replicas";
import { openPostgres, type PostgresPoolOptions } from "../../../src/database/drivers/postgres.ts";
import {
  inReadContext,
  noPositions,
  type Positions,
  ReadContext,
  type ReplicatedShard,
  type ReplicationSettings,
  replicatedShard,
} from "../../../src/database/index.ts";
import { systemClock } from "../../../src/kernel/clock.ts";
import type { Logger } from "../../../src/kernel/log.ts";
import { seededRandom } from "../../../src/kernel/random.ts";

export { testSeed } from "../support.ts";
export { type ReplicaServer, startTestReplicas, type TestReplicas };

/** A replicated shard over the set's servers, its followers known. */
export async function openReplicated(
  set: TestReplicas,
  options: {
    readonly settings?: ReplicationSettings;
    readonly pool?: PostgresPoolOptions;
    readonly leaderUrl?: string;
    readonly followers?: readonly ReplicaServer[];
    readonly log?: Logger;
  } = {},
): Promise<ReplicatedShard> {
  const log = options.log === undefined ? {} : { log: options.log };
  const shard = replicatedShard({
    shard: 0,
    leader: openPostgres({
      name: "shard 0",
      address: { url: options.leaderUrl ?? set.leader.connectionString },
      pool: { leader: {}, ...options.pool },
      ...log,
    }),
    followers: (options.followers ?? set.followers).map((server) =>
      openPostgres({ name: server.name, address: { url: server.connectionString }, ...log }),
    ),
    clock: systemClock,
    random: seededRandom(1),
    settings: options.settings ?? {},
    ...log,
  });
  await shard.look();
  return shard;
}

/** Does the work in a unit of its own, with what a session has seen before; gives what it has seen after. */
export async function inUnit<R>(
  work: (context: ReadContext) => Promise<R>,
  seen: Positions = noPositions,
): Promise<{ readonly result: R; readonly seen: Positions }> {
  const context = new ReadContext(seen);
  const result = await inReadContext(context, () => work(context));
  return { result, seen: await context.settle() };
}

/** Resolves once it is so; raises after 20 s. */
export async function until(what: string, isSo: () => boolean | Promise<boolean>, ms = 20_000): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error(`Not so within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** One TCP address that leads to a server, and later to another: what HAProxy or a name in DNS does. */
export interface MovingAddress {
  readonly url: string;
  /** New connections lead there; those there are stay. Undefined: they are refused. */
  pointTo(server: ReplicaServer | undefined): Promise<void>;
  /** Breaks the connections there are. */
  breakAll(): void;
  close(): Promise<void>;
}

export async function movingAddress(first: ReplicaServer): Promise<MovingAddress> {
  let target: ReplicaServer | undefined = first;
  const sockets = new Set<Socket>();
  const accept = createServer((client) => {
    if (target === undefined) {
      client.destroy();
      return;
    }
    const upstream = createConnection(`${target.host}/.s.PGSQL.${target.port}`);
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => accept.listen(0, "127.0.0.1", resolve));
  const { port } = accept.address() as AddressInfo;
  return {
    url: `postgres://${first.user}@127.0.0.1:${port}/${first.database}`,
    async pointTo(server) {
      target = server;
    },
    breakAll() {
      for (const socket of sockets) socket.destroy();
    },
    async close() {
      const closed = new Promise((resolve) => accept.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
