/** The payments of a running Conduit, joined from the tiers once a process. */
import type { ServiceContext } from "rungs";
import type { Tips } from "../domain/model.ts";
import type { Tables } from "../schema.ts";
import { type Charging, createCharging } from "./charging.ts";
import type { PaymentProvider } from "./payment-provider.ts";
import { millisecondsOf, paymentProviderOf } from "./provider-setting.ts";
import { createTips } from "./tips.ts";

export interface Payments {
  readonly tips: Tips;
  /** Undefined when no provider is set; so is `charging`. */
  readonly provider: PaymentProvider | undefined;
  readonly charging: Charging | undefined;
  /** A charge without outcome is looked at after this long. */
  readonly checkAfterMs: number;
}

const made = new WeakMap<ServiceContext<Tables>, Payments>();

/** The payments over these tiers; the same object for the same tiers. Raises `CONFIG_INVALID` on wrong settings. */
export function paymentsOf(context: ServiceContext<Tables>): Payments {
  const known = made.get(context);
  if (known !== undefined) return known;
  const { db, call, clock, random, environment, live } = context;
  const provider = paymentProviderOf(environment);
  const checkAfterMs = millisecondsOf(environment, "PAYMENT_CHECK_AFTER_MS", 60_000);
  const payments: Payments = {
    provider,
    checkAfterMs,
    tips: createTips({ db, call, clock, random, isOffered: provider !== undefined }),
    charging: provider && createCharging({ db, provider, live, clock, random, checkAfterMs }),
  };
  made.set(context, payments);
  return payments;
}
