/**
 * A tip's way through the provider: requested -> charging -> succeeded | declined | failed, never back.
 *
 * Atomic phases, each a transaction of its own with nothing but the database in it:
 *
 * 1. *Begin*: "charging" is committed before the provider is called, so that a tip that may have been charged always looks
 *    like one.
 * 2. Outside: the provider is called with the tip's id as its idempotency key, or asked. What raises leaves the tip
 *    "charging"; another try makes the same call, which charges nothing twice.
 * 3. *End*: the outcome, the ledger's entry and the message to the payee's shard commit together, from "charging" only. A
 *    worker, a notice and the reconciliation may all bring an outcome; the first counts.
 *
 * Three events lead here: the tip was requested, the provider sent a notice, or nobody heard of it for long. None of them is
 * believed: what ends a tip is the provider's own answer in phase 2.
 */
import { type Clock, type Random, uuidV7 } from "rungs";
import type { Database, ShardTransaction } from "rungs/database";
import type { Delivery } from "rungs/queue";
import { userTopic } from "../notifications/topics.ts";
import type { Tables } from "../schema.ts";
import { book } from "./ledger.ts";
import { tipCaptured, tipCompleted } from "./payment-events.ts";
import { type Charge, type PaymentProvider, ProviderRefusedError } from "./payment-provider.ts";
import { addReceivedTip, beginCharging, endTip, noteCharge, tipById } from "./tip-statements.ts";
import type { TipRow } from "./tips.ts";

/** Sends to a user's open pages. */
export interface LiveSender {
  send(topic: string, message: { readonly event: string; readonly data: unknown }): Promise<void>;
}

export interface ChargingOptions {
  readonly db: Database<Tables>;
  readonly provider: PaymentProvider;
  readonly live: LiveSender;
  readonly clock: Clock;
  readonly random: Random;
  /** A charge without outcome is looked at after this long. */
  readonly checkAfterMs: number;
}

/**
 * Providers keep idempotency keys 24 hours. From an hour before that on, counted from when the tip was asked for, nothing is
 * charged any more: the call would be a new charge beside one whose answer was lost. Then the provider is only asked.
 */
const keyKeptMs = 23 * 60 * 60 * 1_000;

/** How the outcome is found out. */
type Means = "charge" | "ask" | { readonly chargeId: string };

type TipKey = { readonly tipId: string; readonly payerId: string };
type Outcome = Exclude<Charge, { state: "pending" }> | { readonly state: "failed"; readonly reason: string };
/** What a delivery's steps and waits need. */
type Run = Pick<Delivery<unknown>, "once" | "signal">;

export function createCharging(options: ChargingOptions) {
  const { db, provider, live, clock, random, checkAfterMs } = options;
  const now = () => new Date(clock.now());

  /** Phase 1. Gives the tip as it is then; undefined when it is unknown. */
  async function begin({ payerId, tipId }: TipKey): Promise<TipRow | undefined> {
    const checkAt = new Date(clock.now() + checkAfterMs);
    const [begun] = await db.for(payerId).run(beginCharging, { payerId, tipId, checkAt, now: now() });
    if (begun === undefined) return (await db.for(payerId).run(tipById, { payerId, tipId }))[0];
    await tell(begun);
    return begun;
  }

  async function chargeNow(tip: TipRow, signal: AbortSignal): Promise<Charge | Outcome> {
    try {
      return await provider.charge({
        tipId: tip.tip_id,
        payerId: tip.payer_id,
        amountMinor: tip.amount_minor,
        currency: tip.currency,
        signal,
      });
    } catch (error) {
      if (error instanceof ProviderRefusedError) return { state: "failed", reason: error.reason };
      throw error;
    }
  }

  /** Phase 2. */
  async function findOut(tip: TipRow, means: Means, signal: AbortSignal): Promise<Charge | Outcome> {
    const isKeyKept = clock.now() - tip.created_at.getTime() < keyKeptMs;
    if (means === "charge" && isKeyKept) return chargeNow(tip, signal);
    const chargeId = typeof means === "object" ? means.chargeId : tip.charge_id;
    const known = await provider.retrieve(chargeId === null ? { tipId: tip.tip_id } : { chargeId }, signal);
    if (known !== undefined) return known;
    if (chargeId !== null) throw new Error(`${provider.name} knows no charge ${chargeId} of tip ${tip.tip_id}.`);
    // No call ever got there.
    return isKeyKept ? chargeNow(tip, signal) : { state: "failed", reason: "never_charged" };
  }

  /** Phase 3, in the payer's transaction. Undefined when the tip has an end already. */
  async function end(tx: ShardTransaction<Tables>, tip: TipKey, outcome: Outcome): Promise<TipRow | undefined> {
    const at = now();
    const [ended] = await tx.run(endTip, {
      ...tip,
      state: outcome.state,
      reason: "reason" in outcome ? outcome.reason : null,
      chargeId: "chargeId" in outcome ? outcome.chargeId : null,
      now: at,
    });
    if (ended === undefined || ended.state !== "succeeded") return ended;
    const { amount_minor: amountMinor, fee_minor: feeMinor, currency, message, payee_id: payeeId } = ended;
    await book(tx, {
      ownerId: tip.payerId,
      entryId: uuidV7(clock, random),
      kind: "tip_captured",
      tipId: tip.tipId,
      currency,
      bookedAt: at,
      lines: { provider_receivable: amountMinor, clearing: feeMinor - amountMinor, fee_revenue: -feeMinor },
    });
    tx.publish(tipCaptured, { ...tip, payeeId, amountMinor, feeMinor, currency, message }, { key: payeeId });
    return ended;
  }

  /** Tells the payer's open pages. */
  function tell(tip: TipRow): Promise<void> {
    const data = { id: tip.tip_id, state: tip.state, version: tip.version };
    return live.send(userTopic(tip.payer_id), { event: "tip", data });
  }

  return {
    /** Brings a tip as far as it goes now. Raises what leaves its outcome open: the message is then tried again. */
    async advance(delivery: Run, { payerId, tipId }: TipKey, means: Means): Promise<void> {
      const key = { payerId, tipId };
      const tip = await begin(key);
      if (tip === undefined || tip.state !== "charging") return;
      const found = await findOut(tip, means, delivery.signal);
      if (found.state === "pending") {
        await db.for(payerId).run(noteCharge, { ...key, chargeId: found.chargeId });
        return;
      }
      const ended = await delivery.once(db.for(payerId), (tx) => end(tx, key, found), "end");
      if (ended !== undefined) await tell(ended);
    },

    /** Books a captured tip in the payee's books and says that it is completed. */
    async receive(delivery: Run, captured: ReturnType<typeof tipCaptured.parse>): Promise<void> {
      const { feeMinor, ...completed } = captured;
      const { payeeId, tipId, amountMinor, currency } = completed;
      const at = now();
      const isFirst = await delivery.once(db.for(payeeId), async (tx) => {
        await tx.run(addReceivedTip, { ...captured, now: at });
        await book(tx, {
          ownerId: payeeId,
          entryId: uuidV7(clock, random),
          kind: "tip_received",
          tipId,
          currency,
          bookedAt: at,
          lines: { clearing: amountMinor - feeMinor, user_balance: feeMinor - amountMinor },
        });
        tx.publish(tipCompleted, completed, { key: payeeId });
        return true;
      });
      if (isFirst === undefined) return;
      const data = { id: tipId, state: "received", amount: amountMinor, fee: feeMinor, currency };
      await live.send(userTopic(payeeId), { event: "tip", data });
    },
  };
}

export type Charging = ReturnType<typeof createCharging>;
