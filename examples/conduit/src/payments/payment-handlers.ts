/** What is done about payments in the background. */
import { ConfigError, type ServiceContext } from "rungs";
import { every, type Handler, handle, publication, type Schedule } from "rungs/queue";
import type { Tables } from "../schema.ts";
import type { Charging } from "./charging.ts";
import { reconcileDue, tipCaptured, tipNotified, tipOverdue, tipRequested } from "./payment-events.ts";
import { ProviderUnknownError } from "./payment-provider.ts";
import { paymentsOf } from "./payments.ts";
import { postponeCheck } from "./tip-statements.ts";

type Context = ServiceContext<Tables>;

/** Tips looked at in one reconciliation; the rest waits for the next. */
const overdueMax = 500;
const reconcileEveryMs = 30_000;
/** How long a repeated notice is known as one. Providers repeat them for three days; a later one would change nothing. */
const noticesKeptMs = 30 * 24 * 60 * 60 * 1_000;

/** Tries within about ten minutes; what then has no outcome, the reconciliation goes on asking for. */
const charging = { attemptsMax: 12, backoff: { firstMs: 500, maxMs: 120_000 }, concurrency: 20 };

export const paymentHandlers: Readonly<Record<string, Handler<Context>>> = {
  charge: handle(
    tipRequested,
    (delivery, context: Context) => chargingOf(context).advance(delivery, delivery.payload, "charge"),
    charging,
  ),

  look: handle(
    tipNotified,
    async (delivery, context: Context) => {
      const { chargeId, ...tip } = delivery.payload;
      await chargingOf(context).advance(delivery, tip, { chargeId });
    },
    charging,
  ),

  ask: handle(
    tipOverdue,
    async (delivery, context: Context) => {
      try {
        await chargingOf(context).advance(delivery, delivery.payload, "ask");
      } catch (error) {
        // No dead letter: as long as the tip has no outcome, each reconciliation asks again.
        if (!(error instanceof ProviderUnknownError)) throw error;
        context.log.info({ tip: delivery.payload.tipId, reason: error.message }, "a tip's outcome is still unknown");
      }
    },
    charging,
  ),

  receive: handle(tipCaptured, async (delivery, context: Context) => {
    await chargingOf(context).receive(delivery, delivery.payload);
  }),

  reconcile: handle(reconcileDue, async (_delivery, context: Context) => {
    if (paymentsOf(context).charging === undefined) return;
    await askForOverdue(context);
    await forgetNotices(context);
  }),
};

export const paymentSchedules: Readonly<Record<string, Schedule>> = {
  reconcile: every({ event: reconcileDue, payload: {}, everyMs: reconcileEveryMs }),
};

function chargingOf(context: Context): Charging {
  const { charging } = paymentsOf(context);
  if (charging !== undefined) return charging;
  throw new ConfigError(
    "CONFIG_INVALID",
    "A tip is under way, but no payment provider is set. Set PAYMENT_PROVIDER_URL or STRIPE_SECRET_KEY as before.",
  );
}

type Overdue = { readonly payer_id: string; readonly tip_id: string; readonly check_at: Date };

/** Has the outcome found out of every tip that has been under way for long. */
async function askForOverdue(context: Context): Promise<void> {
  const { db, clock } = context;
  const now = new Date(clock.now());
  const checkAt = new Date(clock.now() + 2 * paymentsOf(context).checkAfterMs);
  // Those of a shard that is down are found when it is back.
  const { rows: overdue } = await db.everywhere<Overdue>(
    (shard, window) =>
      shard
        .selectFrom("tips")
        .select(["payer_id", "tip_id", "check_at"])
        .where("state", "in", ["requested", "charging"])
        .where("check_at", "<=", now)
        .orderBy("check_at")
        .limit(window.limit)
        .offset(window.offset)
        .execute(),
    { orderBy: [["check_at", "asc"]], limit: overdueMax, onFailure: "partial" },
  );
  for (const { payer_id: payerId, tip_id: tipId } of overdue) {
    await db.for(payerId).run(
      postponeCheck,
      { payerId, tipId, now, checkAt },
      {
        publish: [publication(tipOverdue, { payerId, tipId }, { key: tipId })],
      },
    );
  }
}

async function forgetNotices({ db, clock }: Context): Promise<void> {
  const before = new Date(clock.now() - noticesKeptMs);
  await db.everywhere(
    (shard) => shard.deleteFrom("payment_notices").where("received_at", "<", before).returning("notice_id").execute(),
    { onFailure: "partial" },
  );
}
