/** Tips as people see them: asking for one, and looking at what came of it. */
import { type Clock, type Random, UnavailableError, uuidV7 } from "rungs";
import type { Call } from "rungs/call";
import type { Database } from "rungs/database";
import { fingerprintOf, once } from "rungs/idempotency";
import { accounts } from "../accounts/account-methods.ts";
import type { Balance, NewTip, ReceivedTip, Tip, TipPageRequest, Tips } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { inputs, parse } from "../domain/validation.ts";
import type { Tables, TipTable } from "../schema.ts";
import { feeOf } from "./ledger.ts";
import { tipRequested } from "./payment-events.ts";
import { addTip, balancesOf, tipById, tipsGiven, tipsReceived } from "./tip-statements.ts";

export interface TipsOptions {
  readonly db: Database<Tables>;
  /** People are accounts', whose tables may be in another database. */
  readonly call: Call;
  readonly clock: Clock;
  readonly random: Random;
  /** Whether there is a payment provider: without one, tips are not offered. */
  readonly isOffered: boolean;
}

/** A tip that nobody has begun to charge is looked at after this long: a queue may have a backlog. */
export const requestedCheckMs = 15 * 60 * 1_000;

/** The highest UUID, so that a page without `before` begins with the newest. */
const idMax = "ffffffff-ffff-ffff-ffff-ffffffffffff";

/** Columns that make a tip. */
export type TipRow = Omit<TipTable, "check_at" | "state" | "version"> & {
  readonly state: Tip["state"];
  readonly version: number;
};

export function createTips(options: TipsOptions): Tips {
  const { db, call, clock, random, isOffered } = options;

  async function payeeOf(username: string) {
    const payee = await call(accounts.personByName, { username });
    if (payee === null) throw new ProblemError(404, { profile: ["not found"] });
    return payee;
  }

  /** People by id, as they are called now; nobody while that is not to be had: the tips are worth showing without them. */
  async function people(ids: readonly string[]) {
    const userIds = [...new Set(ids)];
    const found = userIds.length === 0 ? [] : await call(accounts.people, { userIds }).catch(orNobody);
    const byId = new Map(found.map(({ userId, username, image }) => [userId, { username, image }]));
    return (id: string) => byId.get(id) ?? null;
  }

  async function shown(rows: readonly TipRow[]): Promise<Tip[]> {
    const personOf = await people(rows.map(({ payee_id }) => payee_id));
    return rows.map((row) => tipOf(row, personOf(row.payee_id)));
  }

  return {
    isOffered,

    async give(payerId, username, input: NewTip, key): Promise<{ tip: Tip; replayed: boolean }> {
      if (!isOffered) throw new ProblemError(404, { tips: ["are not offered here"] });
      const { amount, currency, message } = parse(inputs.newTip, input);
      const payee = await payeeOf(username);
      if (payee.userId === payerId) throw new ProblemError(422, { tip: ["cannot be given to yourself"] });
      const fingerprint = fingerprintOf(["tip", payee.userId, amount, currency, message]);
      const { answer, replayed } = await db.for(payerId).transaction((tx) =>
        once(tx, { ownerId: payerId, key, fingerprint }, async (): Promise<Tip> => {
          const now = new Date(clock.now());
          const tipId = uuidV7(clock, random);
          const [row] = await tx.run(addTip, {
            payerId,
            tipId,
            payeeId: payee.userId,
            amountMinor: amount,
            feeMinor: feeOf(amount),
            currency,
            message,
            checkAt: new Date(now.getTime() + requestedCheckMs),
            now,
          });
          tx.publish(tipRequested, { tipId, payerId }, { key: tipId });
          return tipOf(row as TipRow, { username: payee.username, image: payee.image });
        }),
      );
      return { tip: answer, replayed };
    },

    async byId(payerId, tipId): Promise<Tip> {
      const [row] = isId(tipId) ? await db.for(payerId).run(tipById, { payerId, tipId }) : [];
      if (row === undefined) throw new ProblemError(404, { tip: ["not found"] });
      const [tip] = await shown([row]);
      return tip as Tip;
    },

    async given(payerId, page: TipPageRequest): Promise<readonly Tip[]> {
      const { limit, before = idMax } = parse(inputs.tipPage, page);
      return shown(await db.for(payerId).run(tipsGiven, { payerId, before, limit }));
    },

    async received(payeeId, page: TipPageRequest): Promise<readonly ReceivedTip[]> {
      const { limit, before = idMax } = parse(inputs.tipPage, page);
      const rows = await db.for(payeeId).run(tipsReceived, { payeeId, before, limit });
      const personOf = await people(rows.map(({ payer_id }) => payer_id));
      return rows.map((row) => ({
        id: row.tip_id,
        from: personOf(row.payer_id),
        amount: row.amount_minor,
        fee: row.fee_minor,
        currency: row.currency,
        message: row.message,
        createdAt: row.created_at.toISOString(),
      }));
    },

    async balance(userId): Promise<readonly Balance[]> {
      const rows = await db.for(userId).run(balancesOf, { userId });
      return rows.map(({ currency, amount_minor }) => ({ currency, amount: amount_minor }));
    },
  };
}

function orNobody(error: unknown): never[] {
  if (error instanceof UnavailableError) return [];
  throw error;
}

function tipOf(row: TipRow, to: Tip["to"]): Tip {
  return {
    id: row.tip_id,
    state: row.state,
    reason: row.reason,
    amount: row.amount_minor,
    currency: row.currency,
    message: row.message,
    to,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
  };
}

function isId(text: string): boolean {
  return /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);
}
