/** The payment provider of `../fake-provider`: a process of its own that behaves as badly as real ones do. */
import {
  type Charge,
  NoticeRefusedError,
  type PaymentProvider,
  ProviderRefusedError,
  ProviderUnknownError,
} from "../payment-provider.ts";
import { verifySignature } from "../webhook-signature.ts";
import { callProvider, objectOf, recordOf, textOf } from "./provider-http.ts";

export interface FakeProviderOptions {
  /** Where it listens, e.g. `http://127.0.0.1:4000`. */
  readonly url: string;
  readonly apiKey: string;
  readonly webhookSecret: string;
  /** Longest wait for one answer; default 10,000 ms. */
  readonly timeoutMs?: number;
}

/** The provider's client, and what only the fake one can do. */
export interface FakeProviderClient extends PaymentProvider {
  /** Tells the provider where notices go, from now on and also those still to be delivered. */
  registerWebhook(url: string): Promise<void>;
}

/** The client. Nothing is sent before the first call. */
export function fakeProviderClient(options: FakeProviderOptions): FakeProviderClient {
  const { apiKey, webhookSecret } = options;
  const base = options.url.replace(/\/+$/, "");
  const call = (method: "GET" | "POST", path: string, signal: AbortSignal, key?: string, body?: unknown) =>
    callProvider({
      name: "The payment provider",
      url: `${base}${path}`,
      method,
      signal,
      headers: {
        authorization: `Bearer ${apiKey}`,
        ...(key === undefined ? {} : { "idempotency-key": key }),
        ...(body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      ...(options.timeoutMs === undefined ? {} : { timeoutMs: options.timeoutMs }),
    });

  return {
    name: "fake provider",

    async charge({ tipId, payerId, amountMinor, currency, signal }) {
      const charge = { amount: amountMinor, currency, metadata: { tip_id: tipId, payer_id: payerId } };
      const { status, body } = await call("POST", "/v1/charges", signal, tipId, charge);
      if (status === 200 || status === 402) return chargeOf(body);
      const code = textOf(body["code"]) ?? `status_${status}`;
      // A key used with other values has an outcome already, whatever it is.
      const isRefusal = (status === 400 || status === 422) && code !== "idempotency_key_reused";
      if (isRefusal) throw new ProviderRefusedError(code);
      throw new ProviderUnknownError(`The payment provider answered a charge with ${status}`);
    },

    async retrieve(reference, signal) {
      const path =
        "chargeId" in reference
          ? `/v1/charges/${encodeURIComponent(reference.chargeId)}`
          : `/v1/charges/by-key/${encodeURIComponent(reference.tipId)}`;
      const { status, body } = await call("GET", path, signal);
      if (status === 404) return undefined;
      if (status !== 200)
        throw new ProviderUnknownError(`The payment provider answered ${status} when asked for a charge`);
      return chargeOf(body);
    },

    verifyWebhook(body, headers, nowMs) {
      verifySignature({ body, header: headers["payment-signature"], secret: webhookSecret, nowMs });
      const event = objectOf(body.toString("utf8"));
      const noticeId = textOf(event["id"]);
      if (noticeId === undefined) throw new NoticeRefusedError("The notice has no id.");
      const charge = recordOf(event["charge"]);
      const metadata = recordOf(charge["metadata"]);
      const [chargeId, tipId, payerId] = [charge["id"], metadata["tip_id"], metadata["payer_id"]].map(textOf);
      if (chargeId === undefined || tipId === undefined || payerId === undefined) return undefined;
      return { noticeId, chargeId, tipId, payerId };
    },

    async registerWebhook(url) {
      const { status } = await call("POST", "/v1/webhooks", new AbortController().signal, undefined, { url });
      if (status !== 200)
        throw new ProviderUnknownError(`The payment provider answered a webhook address with ${status}`);
    },
  };
}

function chargeOf(body: Readonly<Record<string, unknown>>): Charge {
  const chargeId = textOf(body["id"]);
  const state = body["status"];
  if (chargeId !== undefined && (state === "pending" || state === "succeeded")) return { state, chargeId };
  if (chargeId !== undefined && state === "declined") {
    return { state, chargeId, reason: textOf(body["decline_code"]) ?? "declined" };
  }
  throw new ProviderUnknownError(`The payment provider described a charge as ${JSON.stringify(state)}`);
}
