/** The ledger against a real server: what the database itself refuses, and what holds after anything. */
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import fc from "fast-check";
import { CompiledQuery } from "kysely";
import { initialPlacement, migrate, type ShardConnection, shardedDatabase, tableRegistry } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { book, feeOf, type NewEntry } from "../src/payments/ledger.ts";
import { ledgerFaults } from "../src/payments/ledger-checks.ts";
import ledgerMigration from "../src/payments/migrations/0001_ledger.ts";
import tipsMigration from "../src/payments/migrations/0002_tips.ts";
import type { Tables } from "../src/schema.ts";

let server: TestPostgres;
let shard: ShardConnection;
let db: ReturnType<typeof shardedDatabase<Tables>>;
let count = 0;

const uuid = () => `00000000-0000-7000-8000-${String(++count).padStart(12, "0")}`;

beforeAll(async () => {
  server = await startTestPostgres();
  const url = await server.createDatabase();
  shard = openPostgres({ name: "shard 0", address: { url }, pool: { connectionsMax: 12 } });
  const migrations = [
    { ...ledgerMigration, name: "0001_ledger" },
    { ...tipsMigration, name: "0002_tips" },
  ];
  const run = (to?: string) =>
    migrate({
      db: shard.kysely,
      name: "shard 0",
      service: "payments",
      target: "shards",
      migrations,
      ...(to === undefined ? {} : { to }),
    });
  await run();
  await run("none");
  await run();
  db = shardedDatabase<Tables>({
    shards: [shard],
    placement: initialPlacement({ strategy: "hash", shards: 1 }),
    tables: tableRegistry([
      {
        name: "payments",
        tables: {
          ledger_accounts: { shardBy: "owner_id" },
          ledger_entries: { shardBy: "owner_id" },
          ledger_lines: { shardBy: "owner_id" },
          tips: { shardBy: "payer_id" },
        },
      },
    ]),
  });
});

afterAll(async () => {
  await db?.close();
  await server?.stop();
});

function entry(ownerId: string, lines: NewEntry["lines"], currency = "EUR"): NewEntry {
  return { ownerId, entryId: uuid(), kind: "tip_captured", tipId: uuid(), currency, bookedAt: new Date(0), lines };
}

const bookOne = (one: NewEntry) => db.for(one.ownerId).transaction((tx) => book(tx, one));

/** Plain SQL of a superuser, past every rule of the app's own code. */
type Query = (text: string, values?: unknown[]) => Promise<unknown>;
const plain: Query = (text, values = []) => shard.query(undefined, text, values);

const inTransaction = (work: (query: Query) => Promise<unknown>) =>
  shard.kysely
    .transaction()
    .execute((tx) => work((text, values = []) => tx.executeQuery(CompiledQuery.raw(text, values))));

const emptyEntry = (query: Query, ownerId: string, entryId: string) =>
  query(
    "insert into ledger_entries (owner_id, entry_id, kind, tip_id, booked_at) values ($1, $2, 'tip_captured', $3, now())",
    [ownerId, entryId, uuid()],
  );

interface PlainLine {
  readonly ownerId: string;
  readonly entryId: string;
  readonly line: number;
  readonly amount: number;
  readonly currency?: string;
}

const addLine = (query: Query, { ownerId, entryId, line, amount, currency = "EUR" }: PlainLine) =>
  query("insert into ledger_lines values ($1, $2, $3, 'clearing', $4, $5)", [ownerId, entryId, line, currency, amount]);

async function balances(ownerId: string): Promise<Record<string, number>> {
  const rows = await db
    .for(ownerId)
    .selectFrom("ledger_accounts")
    .select(["account", "currency", "balance_minor"])
    .where("owner_id", "=", ownerId)
    .execute();
  return Object.fromEntries(
    rows.map(({ account, currency, balance_minor }) => [`${account} ${currency}`, balance_minor]),
  );
}

describe("the fee", () => {
  it("is never negative, never all of it, and rounded down", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100_000 }), (amount) => {
        const fee = feeOf(amount);
        expect(Number.isInteger(fee) && fee >= 0 && fee < amount && fee * 20 <= amount).toBe(true);
      }),
    );
    expect([1, 19, 20, 500, 100_000].map(feeOf)).toEqual([0, 0, 1, 25, 5_000]);
  });
});

describe("the ledger", () => {
  it("holds its invariants after any parallel mix of balanced and unbalanced entries", async () => {
    const line = fc.integer({ min: -1_000_000_000_000, max: 1_000_000_000_000 }).filter((amount) => amount !== 0);
    const wish = fc.record({
      owner: fc.integer({ min: 0, max: 2 }),
      currency: fc.constantFrom("EUR", "USD"),
      first: line,
      second: line,
      isBalanced: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(wish, { minLength: 1, maxLength: 20 }), async (wishes) => {
        const owners = [uuid(), uuid(), uuid()];
        const expected: Record<string, number> = {};
        const outcomes = await Promise.allSettled(
          wishes.map(({ owner, currency, first, second, isBalanced }) => {
            const rest = isBalanced ? -(first + second) : -(first + second) + 1;
            const lines = { provider_receivable: first, clearing: second, fee_revenue: rest };
            return bookOne(entry(owners[owner] as string, lines, currency));
          }),
        );
        for (const [index, { owner, currency, first, second, isBalanced }] of wishes.entries()) {
          expect(outcomes[index]?.status).toBe(isBalanced ? "fulfilled" : "rejected");
          if (!isBalanced) continue;
          for (const [account, amount] of [
            ["provider_receivable", first],
            ["clearing", second],
            ["fee_revenue", -(first + second)],
          ] as const) {
            if (amount === 0) continue;
            const name = `${owners[owner]} ${account} ${currency}`;
            expected[name] = (expected[name] ?? 0) + amount;
          }
        }
        for (const ownerId of owners) {
          for (const [name, balance] of Object.entries(await balances(ownerId))) {
            expect(balance).toBe(expected[`${ownerId} ${name}`]);
          }
        }
        const { unbalancedEntries, wrongBalances } = await ledgerFaults(db);
        expect([unbalancedEntries, wrongBalances]).toEqual([[], []]);
      }),
      { numRuns: 40, interruptAfterTimeLimit: 60_000, markInterruptAsFailure: true },
    );
  }, 90_000);

  it("balances each currency for itself", async () => {
    const ownerId = uuid();
    const entryId = uuid();
    await expect(
      inTransaction(async (query) => {
        await emptyEntry(query, ownerId, entryId);
        await addLine(query, { ownerId, entryId, line: 1, amount: 100, currency: "EUR" });
        await addLine(query, { ownerId, entryId, line: 2, amount: -100, currency: "USD" });
      }),
    ).rejects.toThrow(/does not balance: off in (EUR by 100, USD by -100|USD by -100, EUR by 100)/);
    expect(await balances(ownerId)).toEqual({});
  });

  it("refuses lines without an entry, an entry without lines, and lines of nothing", async () => {
    const ownerId = uuid();
    await expect(
      inTransaction((query) => addLine(query, { ownerId, entryId: uuid(), line: 1, amount: 100 })),
    ).rejects.toThrow(/foreign key/);
    await expect(inTransaction((query) => emptyEntry(query, ownerId, uuid()))).rejects.toThrow(/has no lines/);
    await expect(
      inTransaction(async (query) => {
        const entryId = uuid();
        await emptyEntry(query, ownerId, entryId);
        await addLine(query, { ownerId, entryId, line: 1, amount: 0 });
      }),
    ).rejects.toThrow(/check constraint/);
  });

  it("refuses whatever would change what was booked, by plain SQL of a superuser too", async () => {
    const one = entry(uuid(), { provider_receivable: 500, clearing: -500 });
    await bookOne(one);
    const before = await balances(one.ownerId);
    for (const statement of [
      "update ledger_lines set amount_minor = amount_minor + 1",
      "update ledger_lines set currency = 'USD'",
      "delete from ledger_lines",
      "update ledger_entries set tip_id = gen_random_uuid()",
      "delete from ledger_entries",
      "truncate ledger_lines",
      "truncate ledger_entries cascade",
      "truncate ledger_accounts cascade",
      "update ledger_accounts set balance_minor = 0",
      "delete from ledger_accounts",
      `insert into ledger_accounts (owner_id, account, currency, balance_minor) values ('${uuid()}', 'user_balance', 'EUR', -1)`,
    ]) {
      await expect(
        inTransaction((query) => query(statement)),
        statement,
      ).rejects.toThrow(/is refused/);
    }
    // Balanced or not, nothing is added to an entry once its transaction has ended.
    await expect(
      inTransaction(async (query) => {
        await addLine(query, { ...one, line: 3, amount: 7 });
        await addLine(query, { ...one, line: 4, amount: -7 });
      }),
    ).rejects.toThrow(/was closed/);
    await expect(
      inTransaction(async (query) => {
        await query("set constraints all immediate");
        await emptyEntry(query, one.ownerId, uuid());
      }),
    ).rejects.toThrow(/has no lines/);
    expect(await balances(one.ownerId)).toEqual(before);
  });

  it("books a tip once an owner", async () => {
    const one = entry(uuid(), { provider_receivable: 500, clearing: -500 });
    await bookOne(one);
    await expect(bookOne({ ...one, entryId: uuid() })).rejects.toThrow(/duplicate key/);
    expect(await balances(one.ownerId)).toEqual({ "provider_receivable EUR": 500, "clearing EUR": -500 });
  });

  it("says what kind of account each is, and knows no others", async () => {
    const one = entry(uuid(), { provider_receivable: 4, clearing: -1, fee_revenue: -1, user_balance: -2 });
    await bookOne(one);
    const rows = await db
      .for(one.ownerId)
      .selectFrom("ledger_accounts")
      .select(["account", "type"])
      .where("owner_id", "=", one.ownerId)
      .orderBy("account")
      .execute();
    expect(rows.map(({ account, type }) => `${account} ${type}`)).toEqual([
      "clearing transit",
      "fee_revenue revenue",
      "provider_receivable asset",
      "user_balance liability",
    ]);
    await expect(bookOne(entry(uuid(), { pocket: 1, clearing: -1 } as NewEntry["lines"]))).rejects.toThrow(/check/);
  });
});

describe("the checks of the ledger", () => {
  it("see what the triggers would have refused, once they are off", async () => {
    const one = entry(uuid(), { provider_receivable: 500, clearing: -500 });
    await bookOne(one);
    const [tipId, payeeId] = [uuid(), uuid()];
    await inTransaction(async (query) => {
      await query("set local session_replication_role = replica");
      await query("update ledger_lines set amount_minor = 501 where entry_id = $1 and line = 1", [one.entryId]);
      await query(
        `insert into tips (payer_id, tip_id, payee_id, amount_minor, fee_minor, currency, message, state, check_at, created_at, updated_at)
       values ($1, $2, $3, 100, 5, 'EUR', '', 'succeeded', now(), now(), now())`,
        [uuid(), tipId, payeeId],
      );
    });
    const faults = await ledgerFaults(db);
    expect(faults.unbalancedEntries).toEqual([one.entryId]);
    expect(faults.wrongBalances).toEqual([`${one.ownerId} provider_receivable EUR`]);
    expect(faults.unbookedTips).toContain(tipId);
    expect(faults.clearing).not.toEqual([]);
    expect(faults.wrongPayees).toContainEqual(`${payeeId} EUR off by 95`);
  });
});

describe("a tip's state", () => {
  const forward = [
    "requested charging",
    "requested failed",
    "charging succeeded",
    "charging declined",
    "charging failed",
  ];

  it("only goes forward, and what was asked for stays as it was", async () => {
    const states = ["requested", "charging", "succeeded", "declined", "failed"];
    for (const from of states) {
      for (const to of states) {
        const tipId = uuid();
        await plain(
          `insert into tips (payer_id, tip_id, payee_id, amount_minor, fee_minor, currency, message, state, check_at, created_at, updated_at)
           values ($1, $2, $3, 100, 5, 'EUR', '', $4, now(), now(), now())`,
          [uuid(), tipId, uuid(), from],
        );
        const change = plain("update tips set state = $2 where tip_id = $1", [tipId, to]);
        if (from === to || forward.includes(`${from} ${to}`)) await change;
        else await expect(change, `${from} ${to}`).rejects.toThrow(/cannot go from/);
      }
    }
    await expect(plain("update tips set amount_minor = amount_minor + 1")).rejects.toThrow(/as it is/);
  });
});
