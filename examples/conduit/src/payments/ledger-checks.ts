/** The invariants of payments, as questions to the databases: for tests, rehearsals and whoever audits. Each answer should be empty. */
import { sql } from "kysely";
import type { Database } from "rungs/database";
import type { Tables } from "../schema.ts";

/** Reads the whole ledger and all tips: linear in their number. */
export interface LedgerFaults {
  /** Entries whose lines do not sum to zero in a currency, or that have none. Never, at any moment. */
  readonly unbalancedEntries: readonly string[];
  /** Accounts whose balance is not the sum of their lines. Never, at any moment. */
  readonly wrongBalances: readonly string[];
  /** Tips that succeeded without their one entry in the payer's books, or the other way round. Never, at any moment. */
  readonly unbookedTips: readonly string[];
  /** Currencies whose clearing accounts do not sum to zero. Only while tips are on their way. */
  readonly clearing: readonly string[];
  /** Payees whose balance is not the sum of their completed tips less fees. Only while tips are on their way. */
  readonly wrongPayees: readonly string[];
}

/** Looks for violations of every invariant; "while on their way" ones hold when no tip is under way. */
export async function ledgerFaults(db: Database<Tables>): Promise<LedgerFaults> {
  const [unbalanced, balances, unbooked, clearing, payees] = await Promise.all([
    db.everywhere((shard) => unbalancedEntries(shard)),
    db.everywhere((shard) => wrongBalances(shard)),
    db.everywhere((shard) => unbookedTips(shard)),
    clearingSums(db),
    wrongPayees(db),
  ]);
  return {
    unbalancedEntries: unbalanced.map(({ entry_id }) => entry_id),
    wrongBalances: balances.map(({ owner_id, account, currency }) => `${owner_id} ${account} ${currency}`),
    unbookedTips: unbooked.map(({ tip_id }) => tip_id),
    clearing: [...clearing].filter(([, sum]) => sum !== 0).map(([currency, sum]) => `${currency} ${sum}`),
    wrongPayees: payees,
  };
}

type Queries = Parameters<Parameters<Database<Tables>["everywhere"]>[0]>[0];

function unbalancedEntries(shard: Queries) {
  return shard
    .selectFrom("ledger_entries as e")
    .leftJoin("ledger_lines as l", (join) =>
      join.onRef("l.owner_id", "=", "e.owner_id").onRef("l.entry_id", "=", "e.entry_id"),
    )
    .select(["e.owner_id", "e.entry_id"])
    .groupBy(["e.owner_id", "e.entry_id", "l.currency"])
    .having(sql<boolean>`coalesce(sum(l.amount_minor), 1) <> 0`)
    .execute();
}

function wrongBalances(shard: Queries) {
  return shard
    .selectFrom("ledger_accounts as a")
    .leftJoin("ledger_lines as l", (join) =>
      join
        .onRef("l.owner_id", "=", "a.owner_id")
        .onRef("l.account", "=", "a.account")
        .onRef("l.currency", "=", "a.currency"),
    )
    .select(["a.owner_id", "a.account", "a.currency"])
    .groupBy(["a.owner_id", "a.account", "a.currency", "a.balance_minor"])
    .having(sql<boolean>`coalesce(sum(l.amount_minor), 0) <> a.balance_minor`)
    .execute();
}

function unbookedTips(shard: Queries) {
  return shard
    .selectFrom("tips as t")
    .leftJoin("ledger_entries as e", (join) =>
      join.onRef("e.owner_id", "=", "t.payer_id").onRef("e.tip_id", "=", "t.tip_id").on("e.kind", "=", "tip_captured"),
    )
    .select("t.tip_id")
    .where(sql<boolean>`(t.state = 'succeeded') <> (e.entry_id is not null)`)
    .execute();
}

async function clearingSums(db: Database<Tables>): Promise<Map<string, number>> {
  const rows = await db.everywhere((shard) =>
    shard
      .selectFrom("ledger_accounts")
      .select(["currency", sql<number>`sum(balance_minor)::bigint`.as("sum")])
      .where("account", "=", "clearing")
      .groupBy("currency")
      .execute(),
  );
  return summed(rows.map(({ currency, sum }) => [currency, sum]));
}

async function wrongPayees(db: Database<Tables>): Promise<string[]> {
  const [earned, owed] = await Promise.all([
    db.everywhere((shard) =>
      shard
        .selectFrom("tips")
        .select(["payee_id", "currency", sql<number>`sum(amount_minor - fee_minor)::bigint`.as("sum")])
        .where("state", "=", "succeeded")
        .groupBy(["payee_id", "currency"])
        .execute(),
    ),
    db.everywhere((shard) =>
      shard
        .selectFrom("ledger_accounts")
        .select(["owner_id", "currency", "balance_minor"])
        .where("account", "=", "user_balance")
        .execute(),
    ),
  ]);
  const off = summed([
    ...earned.map(({ payee_id, currency, sum }): [string, number] => [`${payee_id} ${currency}`, sum]),
    ...owed.map(({ owner_id, currency, balance_minor }): [string, number] => [
      `${owner_id} ${currency}`,
      balance_minor,
    ]),
  ]);
  return [...off].filter(([, sum]) => sum !== 0).map(([payee, sum]) => `${payee} off by ${sum}`);
}

function summed(pairs: readonly (readonly [string, number])[]): Map<string, number> {
  const sums = new Map<string, number>();
  for (const [name, amount] of pairs) sums.set(name, (sums.get(name) ?? 0) + amount);
  return sums;
}
