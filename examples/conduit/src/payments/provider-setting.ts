/** Which payment provider there is, by the settings of the environment. */
import { ConfigError } from "rungs";
import { fakeProviderClient } from "./drivers/fake-provider-client.ts";
import { stripeProvider } from "./drivers/stripe.ts";
import type { PaymentProvider } from "./payment-provider.ts";

/** Settings by name, as in `process.env`. */
export type Settings = Readonly<Record<string, string | undefined>>;

/**
 * The provider of `STRIPE_SECRET_KEY` with `STRIPE_WEBHOOK_SECRET` (and `STRIPE_PAYMENT_METHOD`, `STRIPE_URL`), or of
 * `PAYMENT_PROVIDER_URL` with `PAYMENT_PROVIDER_KEY` and `PAYMENT_WEBHOOK_SECRET`; undefined without either: tips are then
 * not offered. Raises `CONFIG_INVALID` when a part is missing.
 */
export function paymentProviderOf(settings: Settings): PaymentProvider | undefined {
  if (isSet(settings, "STRIPE_SECRET_KEY")) {
    const paymentMethod = settings["STRIPE_PAYMENT_METHOD"];
    const url = settings["STRIPE_URL"];
    return stripeProvider({
      secretKey: need(settings, "STRIPE_SECRET_KEY"),
      webhookSecret: need(settings, "STRIPE_WEBHOOK_SECRET"),
      ...(paymentMethod === undefined ? {} : { paymentMethod }),
      ...(url === undefined ? {} : { url }),
    });
  }
  if (!isSet(settings, "PAYMENT_PROVIDER_URL")) return undefined;
  return fakeProviderClient({
    url: need(settings, "PAYMENT_PROVIDER_URL"),
    apiKey: need(settings, "PAYMENT_PROVIDER_KEY"),
    webhookSecret: need(settings, "PAYMENT_WEBHOOK_SECRET"),
    timeoutMs: millisecondsOf(settings, "PAYMENT_TIMEOUT_MS", 10_000),
  });
}

/** Whether any payment provider is set. */
export function hasPaymentSettings(settings: Settings): boolean {
  return isSet(settings, "STRIPE_SECRET_KEY") || isSet(settings, "PAYMENT_PROVIDER_URL");
}

/** A setting in milliseconds, 1 to 86,400,000. Raises `CONFIG_INVALID` on anything else. */
export function millisecondsOf(settings: Settings, name: string, otherwise: number): number {
  const text = settings[name];
  if (text === undefined || text === "") return otherwise;
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= 86_400_000) return value;
  throw new ConfigError("CONFIG_INVALID", `env ${name} is "${text}"; give milliseconds from 1 to 86400000.`);
}

function isSet(settings: Settings, name: string): boolean {
  return (settings[name] ?? "") !== "";
}

function need(settings: Settings, name: string): string {
  const value = settings[name];
  if (value !== undefined && value !== "") return value;
  throw new ConfigError(
    "CONFIG_INVALID",
    `env ${name} is missing: the payment provider needs it beside its address or key.`,
  );
}
