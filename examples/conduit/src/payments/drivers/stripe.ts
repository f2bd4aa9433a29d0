/**
 * Stripe, by PaymentIntents over HTTP.
 *
 * NEVER RUN LIVE: no account was at hand. It was written after Stripe's API reference and is tested against a local server
 * that answers in the shapes written down there. Before money depends on it, run it in Stripe's test mode.
 *
 * Each tip is one PaymentIntent, made and confirmed in one call under the tip's id as idempotency key, with one payment
 * method by setting: collecting the payer's own card is not part of Conduit. Stripe repeats the first answer of a key for at
 * least 24 hours, a 500 too; whoever only gets that asks by `retrieve({ tipId })`, a search that may lag by a minute.
 */
import {
  type Charge,
  NoticeRefusedError,
  type PaymentProvider,
  ProviderRefusedError,
  ProviderUnknownError,
} from "../payment-provider.ts";
import { verifySignature } from "../webhook-signature.ts";
import { callProvider, objectOf, recordOf, textOf } from "./provider-http.ts";

export interface StripeOptions {
  /** Begins with `sk_` or `rk_`. */
  readonly secretKey: string;
  /** Of the webhook endpoint; begins with `whsec_`. */
  readonly webhookSecret: string;
  /** What pays; default `pm_card_visa`, which exists in test mode only. */
  readonly paymentMethod?: string;
  /** Default `https://api.stripe.com`. */
  readonly url?: string;
}

/** The version whose shapes this file reads; Stripe answers in it whatever the account's own version is. */
const apiVersion = "2024-06-20";

/** Opens the driver. Nothing is sent before the first call. */
export function stripeProvider(options: StripeOptions): PaymentProvider {
  const { secretKey, webhookSecret, paymentMethod = "pm_card_visa", url = "https://api.stripe.com" } = options;
  const call = (method: "GET" | "POST", path: string, signal: AbortSignal, key?: string, form?: URLSearchParams) =>
    callProvider({
      name: "Stripe",
      url: `${url}${path}`,
      method,
      signal,
      headers: {
        authorization: `Bearer ${secretKey}`,
        "stripe-version": apiVersion,
        ...(key === undefined ? {} : { "idempotency-key": key }),
        ...(form === undefined ? {} : { "content-type": "application/x-www-form-urlencoded" }),
      },
      ...(form === undefined ? {} : { body: form.toString() }),
    });

  return {
    name: "Stripe",

    async charge({ tipId, payerId, amountMinor, currency, signal }) {
      const form = new URLSearchParams({
        amount: String(amountMinor),
        currency: currency.toLowerCase(),
        confirm: "true",
        payment_method: paymentMethod,
        "payment_method_types[]": "card",
        // Nobody is there to authenticate the payment: then it is to fail, and not to wait for them.
        error_on_requires_action: "true",
        "metadata[tip_id]": tipId,
        "metadata[payer_id]": payerId,
      });
      const { status, body } = await call("POST", "/v1/payment_intents", signal, tipId, form);
      if (status === 200) return chargeOf(body);
      return chargeOfError(status, recordOf(body["error"]));
    },

    async retrieve(reference, signal) {
      if ("chargeId" in reference) {
        const { status, body } = await call(
          "GET",
          `/v1/payment_intents/${encodeURIComponent(reference.chargeId)}`,
          signal,
        );
        if (status === 404) return undefined;
        if (status !== 200) throw new ProviderUnknownError(`Stripe answered ${status} when asked for a payment`);
        return chargeOf(body);
      }
      const query = new URLSearchParams({ query: `metadata['tip_id']:'${reference.tipId}'`, limit: "1" });
      const { status, body } = await call("GET", `/v1/payment_intents/search?${query}`, signal);
      if (status !== 200) throw new ProviderUnknownError(`Stripe answered a search with ${status}`);
      const found: unknown = Array.isArray(body["data"]) ? body["data"][0] : undefined;
      return found === undefined ? undefined : chargeOf(recordOf(found));
    },

    verifyWebhook(body, headers, nowMs) {
      verifySignature({ body, header: headers["stripe-signature"], secret: webhookSecret, nowMs });
      const event = objectOf(body.toString("utf8"));
      const noticeId = textOf(event["id"]);
      if (noticeId === undefined) throw new NoticeRefusedError("The notice has no id.");
      const intent = recordOf(recordOf(event["data"])["object"]);
      if (intent["object"] !== "payment_intent") return undefined;
      const metadata = recordOf(intent["metadata"]);
      const [chargeId, tipId, payerId] = [intent["id"], metadata["tip_id"], metadata["payer_id"]].map(textOf);
      if (chargeId === undefined || tipId === undefined || payerId === undefined) return undefined;
      return { noticeId, chargeId, tipId, payerId };
    },
  };
}

/** States of a PaymentIntent: https://docs.stripe.com/payments/paymentintents/lifecycle */
function chargeOf(intent: Readonly<Record<string, unknown>>): Charge {
  const chargeId = textOf(intent["id"]);
  const { status } = intent;
  if (chargeId === undefined) throw new ProviderUnknownError("Stripe described a payment without an id");
  if (status === "succeeded") return { state: "succeeded", chargeId };
  if (status === "processing") return { state: "pending", chargeId };
  if (status === "requires_payment_method" || status === "canceled") {
    const error = recordOf(intent["last_payment_error"]);
    return { state: "declined", chargeId, reason: reasonOf(error) ?? String(status) };
  }
  throw new ProviderUnknownError(`Stripe described a payment as ${JSON.stringify(status)}`);
}

/** Error types: https://docs.stripe.com/api/errors */
function chargeOfError(status: number, error: Readonly<Record<string, unknown>>): Charge {
  const chargeId = textOf(recordOf(error["payment_intent"])["id"]);
  if (error["type"] === "card_error" && chargeId !== undefined) {
    return { state: "declined", chargeId, reason: reasonOf(error) ?? "card_declined" };
  }
  // "idempotency_error": the key was used with other parameters (a changed setting), so the first call's outcome stands.
  const isRefusal = error["type"] === "card_error" || error["type"] === "invalid_request_error";
  if (isRefusal && (status === 400 || status === 402)) {
    throw new ProviderRefusedError(reasonOf(error) ?? `status_${status}`);
  }
  throw new ProviderUnknownError(`Stripe answered a payment with ${status} ${String(error["type"] ?? "")}`.trim());
}

function reasonOf(error: Readonly<Record<string, unknown>>): string | undefined {
  return textOf(error["decline_code"]) ?? textOf(error["code"]);
}
