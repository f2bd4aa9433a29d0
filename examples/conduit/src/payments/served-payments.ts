/** How payments answer other services. */
import type { ServiceContext } from "rungs";
import { type ServedMethod, serve } from "rungs/call";
import type { Tables } from "../schema.ts";
import { payments } from "./payment-methods.ts";
import { paymentsOf } from "./payments.ts";

type Context = ServiceContext<Tables>;

export const servedPayments: readonly ServedMethod<Context>[] = [
  serve(payments.give, ({ payerId, username, tip }, { idempotencyKey }, context: Context) =>
    paymentsOf(context).tips.give(payerId, username, tip, idempotencyKey),
  ),
  serve(payments.tip, ({ payerId, tipId }, _call, context: Context) => paymentsOf(context).tips.byId(payerId, tipId)),
  serve(payments.given, ({ userId, ...page }, _call, context: Context) => paymentsOf(context).tips.given(userId, page)),
  serve(payments.received, ({ userId, ...page }, _call, context: Context) =>
    paymentsOf(context).tips.received(userId, page),
  ),
  serve(payments.balance, ({ userId }, _call, context: Context) => paymentsOf(context).tips.balance(userId)),
];
