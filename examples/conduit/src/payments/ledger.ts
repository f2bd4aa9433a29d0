/**
 * The double-entry ledger. Lines are signed minor units: debits above zero, credits below; those of an entry sum to zero in
 * each currency. The database itself refuses anything else, and every change of what was booked (`migrations/0001_ledger.ts`).
 *
 * Every entry belongs to one owner and lies on that user's shard, so each user's books balance alone, wherever they move:
 *
 * | account             | of    | type      | holds                                                                |
 * | ------------------- | ----- | --------- | -------------------------------------------------------------------- |
 * | provider_receivable | payer | asset     | what the provider took from the payer and owes the site              |
 * | clearing            | both  | transit   | on its way between the books of two users: all of it sums to zero    |
 * | fee_revenue         | payer | revenue   | the site's share                                                     |
 * | user_balance        | payee | liability | what the site owes the payee                                         |
 *
 * A tip of 500 with a fee of 25: in the payer's books 500 to provider_receivable, -475 to clearing, -25 to fee_revenue; then,
 * by an event, in the payee's 475 to clearing and -475 to user_balance. Between the two, clearing shows what is on its way.
 *
 * To remove rows that have moved to another shard, the mover needs `set local session_replication_role = replica`, as
 * PostgreSQL's own replication has it; no ordinary role may.
 */
import type { ShardTransaction } from "rungs/database";
import type { LedgerAccount, Tables } from "../schema.ts";

/** An entry about to be booked. */
export interface NewEntry {
  readonly ownerId: string;
  /** UUIDv7. */
  readonly entryId: string;
  /** Together with the tip it is booked once an owner. */
  readonly kind: "tip_captured" | "tip_received";
  readonly tipId: string;
  readonly currency: string;
  readonly bookedAt: Date;
  /** Amounts in minor units, debits above zero; lines of zero are left out. */
  readonly lines: Partial<Readonly<Record<LedgerAccount, number>>>;
}

/** Share of a tip that the site keeps, in percent. */
const feePercent = 5;

/** The fee of a tip in whole minor units, rounded down in the payee's favour. */
export function feeOf(amountMinor: number): number {
  return Math.floor((amountMinor * feePercent) / 100);
}

/** Books an entry in the caller's transaction, whose commit fails if it does not balance. */
export async function book(tx: ShardTransaction<Tables>, entry: NewEntry): Promise<void> {
  const { ownerId, entryId, kind, tipId, currency, bookedAt, lines } = entry;
  await tx
    .insertInto("ledger_entries")
    .values({ owner_id: ownerId, entry_id: entryId, kind, tip_id: tipId, booked_at: bookedAt })
    .execute();
  const booked = Object.entries(lines).filter(([, amountMinor]) => amountMinor !== 0);
  await tx
    .insertInto("ledger_lines")
    .values(
      booked.map(([account, amountMinor], index) => ({
        owner_id: ownerId,
        entry_id: entryId,
        line: index + 1,
        account: account as LedgerAccount,
        currency,
        amount_minor: amountMinor,
      })),
    )
    .execute();
}
