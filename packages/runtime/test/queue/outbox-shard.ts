/** For tests of outbox and relay: a shard with accounts, whose transactions publish numbered messages by way of the outbox. */
import { sql } from "kysely";
import { z } from "zod";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import {
  initialPlacement,
  migrate,
  type ShardConnection,
  shardedDatabase,
  statements,
  tableRegistry,
} from "../../src/database/index.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { systemRandom, uuidV7 } from "../../src/kernel/random.ts";
import { outboxWriter } from "../../src/queue/drivers/outbox-writer.ts";
import { defineEvent, queueMigrations } from "../../src/queue/index.ts";

export interface OutboxTables {
  /** `count`: messages that committed transactions published with this key. */
  accounts: { owner_id: string; count: number };
}

export const counted = defineEvent(
  "account.counted",
  z.object({ key: z.string(), number: z.int(), text: z.string().optional() }),
  { version: 3 },
);
/** Has a handler, which the relay does not know. */
export const closed = defineEvent("account.closed", z.object({ number: z.int() }));
export const handlers = ["books.count", "books.audit"];
export const subscriptions = handlers.map((handler) => ({ event: counted.name, handler }));

const define = statements<OutboxTables>();
/** Sets an account's count; gives no row where there is none. */
export const setCount = define<{ ownerId: string; count: number }>()("outbox_set_count", (q, p) =>
  q.updateTable("accounts").set({ count: p.count }).where("owner_id", "=", p.ownerId).returning("owner_id"),
);

export const ownerAt = (index: number) => `0190c7a0-0000-7000-8000-${index.toString(16).padStart(12, "0")}`;

/** Opens a shard of an empty database; `accounts` of them begin at 0. */
export async function openOutboxShard(url: string, accounts: number) {
  const shard = await migrated(url);
  await sql
    .raw("create table accounts (owner_id uuid primary key, count integer not null default 0)")
    .execute(shard.kysely);
  const owners = Array.from({ length: accounts }, (_, index) => ownerAt(index));
  await shard.query(undefined, "insert into accounts select unnest($1::uuid[])", [owners]);
  return joined(shard);
}

async function migrated(url: string): Promise<ShardConnection> {
  const shard = openPostgres({ name: "shard 0", address: { url } });
  const target = { db: shard.kysely, name: shard.name, service: "rungs_queue", target: "shards" } as const;
  await migrate({ ...target, migrations: queueMigrations });
  return shard;
}

function joined(shard: ShardConnection) {
  const woken = new Set<() => void>();
  const writer = outboxWriter({
    handlersOf: (event) => (event === counted.name ? handlers : ["books.close"]),
    newId: () => uuidV7(systemClock, systemRandom),
  });
  const db = shardedDatabase<OutboxTables>({
    shards: [shard],
    placement: initialPlacement({ strategy: "hash", shards: 1 }),
    tables: tableRegistry([{ name: "books", tables: { accounts: { shardBy: "owner_id" } } }]),
    messages: {
      ...writer,
      committed: () => {
        for (const wake of woken) wake();
      },
    },
  });
  /** Counts an account up and publishes its new count under its key. */
  const count = (owner: number, within: (number: number) => Promise<void> = async () => {}) =>
    db.for(ownerAt(owner)).transaction(async (tx) => {
      const { count: number } = await tx
        .updateTable("accounts")
        .set((e) => ({ count: e("count", "+", 1) }))
        .where("owner_id", "=", ownerAt(owner))
        .returning("count")
        .executeTakeFirstOrThrow();
      tx.publish(counted, { key: ownerAt(owner), number }, { key: ownerAt(owner) });
      await within(number);
      return number;
    });
  return { shard, db, woken, writer, count, close: () => db.close() };
}

export type OutboxShard = Awaited<ReturnType<typeof openOutboxShard>>;
