/** The queries of tips: given ones live with the payer, received ones with the payee. */
import { sql } from "kysely";
import { statements } from "rungs/database";
import type { Tables } from "../schema.ts";

const define = statements<Tables>();

const columns = [
  "tip_id",
  "payer_id",
  "payee_id",
  "amount_minor",
  "fee_minor",
  "currency",
  "message",
  "state",
  "reason",
  "charge_id",
  "version",
  "created_at",
  "updated_at",
] as const;

/** A tip as asked for. */
export const addTip = define<{
  payerId: string;
  tipId: string;
  payeeId: string;
  amountMinor: number;
  feeMinor: number;
  currency: string;
  message: string;
  checkAt: Date;
  now: Date;
}>()("tip_add", (q, p) =>
  q
    .insertInto("tips")
    .values({
      payer_id: p.payerId,
      tip_id: p.tipId,
      payee_id: p.payeeId,
      amount_minor: p.amountMinor,
      fee_minor: p.feeMinor,
      currency: p.currency,
      message: p.message,
      check_at: p.checkAt,
      created_at: p.now,
      updated_at: p.now,
    })
    .returning(columns),
);

export const tipById = define<{ payerId: string; tipId: string }>()("tip_by_id", (q, p) =>
  q.selectFrom("tips").select(columns).where("payer_id", "=", p.payerId).where("tip_id", "=", p.tipId),
);

/** From "requested" to "charging"; no row from any other state. */
export const beginCharging = define<{ payerId: string; tipId: string; checkAt: Date; now: Date }>()(
  "tip_begin_charging",
  (q, p) =>
    q
      .updateTable("tips")
      .set({
        state: "charging",
        version: sql<number>`version + 1`,
        check_at: p.checkAt,
        updated_at: p.now,
      })
      .where("payer_id", "=", p.payerId)
      .where("tip_id", "=", p.tipId)
      .where("state", "=", "requested")
      .returning(columns),
);

/** Notes under which id the provider knows the tip, while its outcome is open. */
export const noteCharge = define<{ payerId: string; tipId: string; chargeId: string }>()("tip_note_charge", (q, p) =>
  q
    .updateTable("tips")
    .set({ charge_id: p.chargeId })
    .where("payer_id", "=", p.payerId)
    .where("tip_id", "=", p.tipId)
    .where("state", "=", "charging")
    .returning("tip_id"),
);

/** From "charging" to its end; no row when it had one already. */
export const endTip = define<{
  payerId: string;
  tipId: string;
  state: "succeeded" | "declined" | "failed";
  reason: string | null;
  chargeId: string | null;
  now: Date;
}>()("tip_end", (q, p) =>
  q
    .updateTable("tips")
    .set({
      state: p.state,
      reason: p.reason,
      charge_id: sql<string | null>`coalesce(${p.chargeId}::text, charge_id)`,
      version: sql<number>`version + 1`,
      updated_at: p.now,
    })
    .where("payer_id", "=", p.payerId)
    .where("tip_id", "=", p.tipId)
    .where("state", "=", "charging")
    .returning(columns),
);

/** Tips of one payer, newest first; ids ascend with time. */
export const tipsGiven = define<{ payerId: string; before: string; limit: number }>()("tips_given", (q, p) =>
  q
    .selectFrom("tips")
    .select(columns)
    .where("payer_id", "=", p.payerId)
    .where("tip_id", "<", p.before)
    .orderBy("tip_id", "desc")
    .limit(p.limit),
);

export const addReceivedTip = define<{
  payeeId: string;
  tipId: string;
  payerId: string;
  amountMinor: number;
  feeMinor: number;
  currency: string;
  message: string;
  now: Date;
}>()("tip_add_received", (q, p) =>
  q.insertInto("received_tips").values({
    payee_id: p.payeeId,
    tip_id: p.tipId,
    payer_id: p.payerId,
    amount_minor: p.amountMinor,
    fee_minor: p.feeMinor,
    currency: p.currency,
    message: p.message,
    created_at: p.now,
  }),
);

/** Tips to one payee, newest first. */
export const tipsReceived = define<{ payeeId: string; before: string; limit: number }>()("tips_received", (q, p) =>
  q
    .selectFrom("received_tips")
    .select(["tip_id", "payer_id", "amount_minor", "fee_minor", "currency", "message", "created_at"])
    .where("payee_id", "=", p.payeeId)
    .where("tip_id", "<", p.before)
    .orderBy("tip_id", "desc")
    .limit(p.limit),
);

/** What the site owes a user, a row a currency. */
export const balancesOf = define<{ userId: string }>()("ledger_balances", (q, p) =>
  q
    .selectFrom("ledger_accounts")
    .select(["currency", sql<number>`-balance_minor`.as("amount_minor")])
    .where("owner_id", "=", p.userId)
    .where("account", "=", "user_balance")
    .orderBy("currency"),
);

/** Remembers a notice; no row for one that came before. */
export const addNotice = define<{ payerId: string; noticeId: string }>()("payment_notice_add", (q, p) =>
  q
    .insertInto("payment_notices")
    .values({ payer_id: p.payerId, notice_id: p.noticeId })
    .onConflict((conflict) => conflict.doNothing())
    .returning("notice_id"),
);

/** Puts off the next look at a tip that is due for one; no row when somebody else just did or it has ended. */
export const postponeCheck = define<{ payerId: string; tipId: string; now: Date; checkAt: Date }>()(
  "tip_postpone_check",
  (q, p) =>
    q
      .updateTable("tips")
      .set({ check_at: p.checkAt })
      .where("payer_id", "=", p.payerId)
      .where("tip_id", "=", p.tipId)
      .where("check_at", "<=", p.now)
      .where("state", "in", ["requested", "charging"])
      .returning("tip_id"),
);
