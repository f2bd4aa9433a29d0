/**
 * The drivers of payment providers. Stripe's was NEVER RUN LIVE: a local server answers here in the shapes that Stripe's API
 * reference writes down, so these tests show that the driver reads those, and not that Stripe sends them.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingHttpHeaders, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { stripeProvider } from "../src/payments/drivers/stripe.ts";
import { startFakeProvider } from "../src/payments/fake-provider/start.ts";
import { NoticeRefusedError, ProviderRefusedError, ProviderUnknownError } from "../src/payments/payment-provider.ts";
import { paymentProviderOf } from "../src/payments/provider-setting.ts";
import { signWebhook, verifySignature } from "../src/payments/webhook-signature.ts";
import { until } from "./support/payments.ts";

const signal = new AbortController().signal;
const wish = (tipId: string, amountMinor = 500) => ({
  tipId,
  payerId: randomUUID(),
  amountMinor,
  currency: "EUR",
  signal,
});

describe("the Stripe driver, on recorded shapes and never live", () => {
  interface Call {
    readonly method: string;
    readonly url: string;
    readonly headers: IncomingHttpHeaders;
    readonly body: string;
  }
  let server: Server;
  let calls: Call[] = [];
  let answer: { status: number; body: unknown } | "hang up" = { status: 200, body: {} };
  let stripe: ReturnType<typeof stripeProvider>;

  const intent = (fields: object) => ({
    id: "pi_3MtwBwLkdIwHu7ix28a3tqPa",
    object: "payment_intent",
    amount: 500,
    amount_received: 0,
    capture_method: "automatic",
    client_secret: "pi_3MtwBwLkdIwHu7ix28a3tqPa_secret_x",
    confirmation_method: "automatic",
    created: 1_680_800_504,
    currency: "eur",
    last_payment_error: null,
    latest_charge: null,
    livemode: false,
    metadata: {},
    payment_method_types: ["card"],
    ...fields,
  });
  const cardError = (fields: object) => ({
    error: {
      type: "card_error",
      code: "card_declined",
      decline_code: "insufficient_funds",
      doc_url: "https://stripe.com/docs/error-codes/card-declined",
      message: "Your card has insufficient funds.",
      payment_intent: intent({ status: "requires_payment_method" }),
      ...fields,
    },
  });

  beforeAll(async () => {
    server = createServer(async (request, response) => {
      let body = "";
      for await (const chunk of request) body += String(chunk);
      calls.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
      if (answer === "hang up") return void response.destroy();
      response.writeHead(answer.status, { "content-type": "application/json" });
      response.end(JSON.stringify(answer.body));
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    stripe = stripeProvider({ secretKey: "sk_test_x", webhookSecret: "whsec_x", url });
  });
  afterAll(() => void server.close());

  it("makes and confirms a PaymentIntent under the tip's id, with what notices need to find it", async () => {
    calls = [];
    answer = { status: 200, body: intent({ status: "succeeded" }) };
    const tip = wish("tip-1");
    expect(await stripe.charge(tip)).toEqual({ state: "succeeded", chargeId: "pi_3MtwBwLkdIwHu7ix28a3tqPa" });
    const [call] = calls;
    expect([call?.method, call?.url]).toEqual(["POST", "/v1/payment_intents"]);
    expect(call?.headers).toMatchObject({
      authorization: "Bearer sk_test_x",
      "idempotency-key": "tip-1",
      "stripe-version": "2024-06-20",
      "content-type": "application/x-www-form-urlencoded",
    });
    expect(Object.fromEntries(new URLSearchParams(call?.body))).toMatchObject({
      amount: "500",
      currency: "eur",
      confirm: "true",
      payment_method: "pm_card_visa",
      error_on_requires_action: "true",
      "metadata[tip_id]": "tip-1",
      "metadata[payer_id]": tip.payerId,
    });
  });

  it.each([
    ["processing", 200, intent({ status: "processing" }), { state: "pending" }],
    ["a decline", 402, cardError({}), { state: "declined", reason: "insufficient_funds" }],
    [
      "a decline without a reason of the bank",
      402,
      cardError({ decline_code: undefined, code: "expired_card" }),
      { state: "declined", reason: "expired_card" },
    ],
    [
      "an authentication nobody can give",
      402,
      cardError({ decline_code: undefined, code: "authentication_required" }),
      { state: "declined", reason: "authentication_required" },
    ],
    ["a canceled payment", 200, intent({ status: "canceled" }), { state: "declined", reason: "canceled" }],
  ])("reads %s", async (_, status, body, expected) => {
    answer = { status, body };
    expect(await stripe.charge(wish("t"))).toMatchObject(expected);
  });

  it.each([
    ["a broken connection", "hang up" as const],
    ["500", { status: 500, body: { error: { type: "api_error" } } }],
    ["a call under way", { status: 409, body: { error: { type: "invalid_request_error", code: "lock_timeout" } } }],
    ["too many calls", { status: 429, body: { error: { code: "rate_limit" } } }],
    ["a wrong key", { status: 401, body: { error: { type: "invalid_request_error" } } }],
    ["other parameters under the key", { status: 400, body: { error: { type: "idempotency_error" } } }],
    ["a state it does not know", { status: 200, body: intent({ status: "new_state" }) }],
    ["no JSON", { status: 200, body: "<html>" }],
  ])("calls the outcome unknown after %s", async (_, reply) => {
    answer = reply;
    await expect(stripe.charge(wish("t"))).rejects.toThrow(ProviderUnknownError);
  });

  it("calls a charge that Stripe will not make refused", async () => {
    const error = { type: "invalid_request_error", code: "amount_too_small", param: "amount" };
    answer = { status: 400, body: { error } };
    await expect(stripe.charge(wish("t"))).rejects.toThrow(ProviderRefusedError);
    await expect(stripe.charge(wish("t"))).rejects.toMatchObject({ reason: "amount_too_small" });
  });

  it("finds a payment by Stripe's id, and by the tip's", async () => {
    calls = [];
    answer = { status: 200, body: intent({ status: "succeeded" }) };
    expect(await stripe.retrieve({ chargeId: "pi_1" }, signal)).toMatchObject({ state: "succeeded" });
    answer = {
      status: 200,
      body: { object: "search_result", data: [intent({ status: "succeeded" })], has_more: false },
    };
    expect(await stripe.retrieve({ tipId: "tip-1" }, signal)).toMatchObject({ state: "succeeded" });
    answer = { status: 200, body: { object: "search_result", data: [], has_more: false } };
    expect(await stripe.retrieve({ tipId: "tip-1" }, signal)).toBeUndefined();
    answer = { status: 404, body: { error: { type: "invalid_request_error", code: "resource_missing" } } };
    expect(await stripe.retrieve({ chargeId: "pi_1" }, signal)).toBeUndefined();
    expect(decodeURIComponent(calls[1]?.url.replaceAll("+", " ") ?? "")).toContain("query=metadata['tip_id']:'tip-1'");
    const error = { ...intent({ status: "requires_payment_method" }), last_payment_error: { code: "card_declined" } };
    answer = { status: 200, body: error };
    expect(await stripe.retrieve({ chargeId: "pi_1" }, signal)).toMatchObject({
      state: "declined",
      reason: "card_declined",
    });
  });

  it("reads a signed event about a tip, and forgets the others", () => {
    const metadata = { tip_id: "tip-1", payer_id: "payer-1" };
    const event = (object: object) =>
      Buffer.from(
        JSON.stringify({
          id: "evt_1NG8Du2eZvKYlo2CUI79vXWy",
          object: "event",
          api_version: "2024-06-20",
          data: { object },
          type: "payment_intent.succeeded",
        }),
      );
    const read = (body: Buffer) =>
      stripe.verifyWebhook(body, { "stripe-signature": signWebhook(body, "whsec_x", 1_000_000) }, 1_000_000);
    expect(read(event(intent({ status: "succeeded", metadata })))).toEqual({
      noticeId: "evt_1NG8Du2eZvKYlo2CUI79vXWy",
      chargeId: "pi_3MtwBwLkdIwHu7ix28a3tqPa",
      tipId: "tip-1",
      payerId: "payer-1",
    });
    expect(read(event(intent({ status: "succeeded" })))).toBeUndefined();
    expect(read(event({ object: "charge", id: "ch_1", metadata }))).toBeUndefined();
    expect(() => stripe.verifyWebhook(event({}), {}, 0)).toThrow(NoticeRefusedError);
  });
});

describe("signatures of notices", () => {
  const body = Buffer.from('{"id":"evt_1"}');

  it("agree with the worked-out value of the scheme", () => {
    // printf '1492774577.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_test
    expect(signWebhook(body, "whsec_test", 1_492_774_577_000)).toBe(
      "t=1492774577,v1=7656fc2882a7ca0a651666b36bf2f2f22ee204f54f608f227498a2419f2890b2",
    );
  });

  it("hold for the body they sign, within five minutes, under the secret, and for nothing else", () => {
    const verify = (header: string | undefined, changed: { body?: Buffer; secret?: string; nowMs?: number } = {}) =>
      verifySignature({ body, header, secret: "s", nowMs: 10_000_000, ...changed });
    const header = signWebhook(body, "s", 10_000_000);
    verify(header);
    verify(header, { nowMs: 10_000_000 + 299_000 });
    verify(`${header.replace("v1=", "v0=00,v1=00,v1=")}`);
    expect(() => verify(header, { nowMs: 10_000_000 + 301_000 })).toThrow(NoticeRefusedError);
    expect(() => verify(header, { nowMs: 10_000_000 - 301_000 })).toThrow(NoticeRefusedError);
    expect(() => verify(header, { secret: "other" })).toThrow(NoticeRefusedError);
    expect(() => verify(header.replace("v1=", "v0="))).toThrow(NoticeRefusedError);
    expect(() => verify(header.replace("t=10000", "t=10001"))).toThrow(NoticeRefusedError);
    expect(() => verify(undefined)).toThrow(NoticeRefusedError);
  });

  it("do not survive any change of the body or the header", () => {
    const header = signWebhook(body, "s", 0);
    fc.assert(
      fc.property(fc.nat(body.length - 1), fc.integer({ min: 1, max: 255 }), fc.string(), (index, mask, text) => {
        const changed = Buffer.from(body);
        changed[index] = (changed[index] as number) ^ mask;
        expect(() => verifySignature({ body: changed, header, secret: "s", nowMs: 0 })).toThrow(NoticeRefusedError);
        if (text !== header) {
          expect(() => verifySignature({ body, header: text, secret: "s", nowMs: 0 })).toThrow(NoticeRefusedError);
        }
      }),
    );
  });
});

describe("the fake provider", () => {
  it("keeps what it acknowledged over a kill, a key's one charge included, and a torn last line", async () => {
    const dataFolder = await mkdtemp(join(tmpdir(), "conduit-provider-"));
    const flags = ["--delay-ms", "1"];
    let provider = await startFakeProvider({ dataFolder, flags });
    const { settings } = provider;
    try {
      const tips = Array.from({ length: 20 }, () => wish(randomUUID()));
      const charged = await Promise.all(tips.map((tip) => provider.client.charge(tip)));
      await provider.stop("SIGKILL");
      const path = join(dataFolder, "journal.jsonl");
      await writeFile(path, `${await readFile(path, "utf8")}{"charge":{"id":"ch_to`);
      provider = await startFakeProvider({ dataFolder, flags, settings });
      expect(await Promise.all(tips.map((tip) => provider.client.charge(tip)))).toEqual(charged);
      const [tip] = tips as [ReturnType<typeof wish>];
      expect(await provider.client.retrieve({ tipId: tip.tipId }, signal)).toEqual(charged[0]);
      await expect(provider.client.charge({ ...tip, amountMinor: 501 })).rejects.toThrow(ProviderUnknownError);
      await expect(provider.client.charge(wish("t", 0))).rejects.toThrow(ProviderRefusedError);
      expect(await provider.client.retrieve({ tipId: "unknown" }, signal)).toBeUndefined();
    } finally {
      await provider.stop();
      await rm(dataFolder, { recursive: true, force: true });
    }
  });

  it("repeats notices until they are received, and then some, in no order", async () => {
    const received: string[] = [];
    let isBroken = true;
    const receiver = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk) => {
        body += String(chunk);
      });
      request.on("end", () => {
        if (!isBroken) received.push(body);
        response.writeHead(isBroken ? 503 : 204).end();
        isBroken = false;
      });
    }).listen(0, "127.0.0.1");
    await once(receiver, "listening");
    const flags = ["--delay-ms", "1", "--notice-delay-ms", "2", "--duplicate-share", "1", "--late-share", "0.5"];
    const provider = await startFakeProvider({ flags });
    try {
      await provider.client.registerWebhook(`http://127.0.0.1:${(receiver.address() as AddressInfo).port}/`);
      for (let count = 0; count < 10; count++) await provider.client.charge(wish(`tip-${count}`));
      // Two notices a charge, each once and three copies.
      await until(
        async () => received.length,
        (length) => length === 80,
      );
      const ids = received.map((body) => JSON.parse(body).id as string);
      expect(new Set(ids).size).toBe(20);
      const charges = received.map((body) => JSON.parse(body).charge.key as string);
      expect(charges).not.toEqual([...charges].sort());
    } finally {
      await provider.stop();
      receiver.close();
    }
  });

  it("lets nobody in without its key, and ends with whoever started it", async () => {
    const provider = await startFakeProvider();
    const { url, child } = provider;
    for (const authorization of ["", "Bearer x", "Basic x"]) {
      expect((await fetch(`${url}/v1/charges`, { headers: { authorization } })).status).toBe(401);
    }
    const end = once(child, "exit");
    child.stdin?.end();
    expect((await end)[0]).toBe(0);
  });
});

describe("the settings", () => {
  it("name the provider, and are refused half", () => {
    expect(paymentProviderOf({})).toBeUndefined();
    expect(paymentProviderOf({ PAYMENT_PROVIDER_URL: "" })).toBeUndefined();
    const stripe = { STRIPE_SECRET_KEY: "sk_test_x", STRIPE_WEBHOOK_SECRET: "whsec_x" };
    expect(paymentProviderOf(stripe)?.name).toBe("Stripe");
    expect(() => paymentProviderOf({ STRIPE_SECRET_KEY: "sk_test_x" })).toThrow(/STRIPE_WEBHOOK_SECRET is missing/);
    expect(() => paymentProviderOf({ PAYMENT_PROVIDER_URL: "http://x" })).toThrow(/PAYMENT_PROVIDER_KEY is missing/);
    expect(() =>
      paymentProviderOf({
        PAYMENT_PROVIDER_URL: "http://x",
        PAYMENT_PROVIDER_KEY: "k",
        PAYMENT_WEBHOOK_SECRET: "s",
        PAYMENT_TIMEOUT_MS: "soon",
      }),
    ).toThrow(/PAYMENT_TIMEOUT_MS is "soon"/);
  });
});
