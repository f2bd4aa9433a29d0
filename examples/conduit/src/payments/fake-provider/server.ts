/**
 * The provider's HTTP API, with keys of access and idempotency:
 *
 * - `POST /v1/charges` `{amount, currency, metadata}`: 200 a charge, 402 a declined one, 400, 409 while a call under the same
 *   key is under way, 422 refused
 * - `GET /v1/charges/ID`, `GET /v1/charges/by-key/KEY`: 200 or 404
 * - `GET /v1/charges?offset=N&limit=N`: all, oldest first
 * - `POST /v1/webhooks` `{url}`: where notices go
 */
import { timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "rungs";
import type { Behaviour } from "./behaviour.ts";
import { type Charges, type FakeCharge, fateOf } from "./charges.ts";
import type { NoticeSender } from "./notices.ts";

export interface FakeProviderServerOptions {
  readonly charges: Charges;
  readonly notices: NoticeSender;
  readonly behaviour: Behaviour;
  readonly apiKey: string;
  readonly random: Random;
}

const bodyBytesMax = 64 * 1_024;
/** A pending charge is settled after this many times the mean wait of a notice. */
const pendingWaits = 3;

type Reply = { readonly status: number; readonly body: object } | "silence" | "reset";
type Body = Readonly<Record<string, unknown>>;

export function fakeProviderServer(options: FakeProviderServerOptions): Server {
  const { charges, apiKey } = options;
  const makeCharge = chargeMaker(options);

  async function route(request: IncomingMessage): Promise<Reply> {
    const url = new URL(request.url ?? "/", "http://provider.invalid");
    if (!isEqual(request.headers.authorization ?? "", `Bearer ${apiKey}`)) return fail(401, "unauthorized");
    const name = `${request.method} ${url.pathname}`;
    if (name === "POST /v1/charges") return makeCharge(request.headers["idempotency-key"], await bodyOf(request));
    if (name === "POST /v1/webhooks") {
      const { url: to } = await bodyOf(request);
      if (typeof to !== "string" || !/^https?:\/\//.test(to)) return fail(400, "url_invalid");
      charges.sendTo(to);
      return { status: 200, body: { url: to } };
    }
    if (name === "GET /v1/charges") {
      const [offset, limit] = ["offset", "limit"].map((part) => Number(url.searchParams.get(part) ?? 0));
      return { status: 200, body: { data: charges.list(offset ?? 0, Math.min(limit || 100, 1_000)).map(shown) } };
    }
    const [, byKey, id = ""] = /^GET \/v1\/charges\/(by-key\/)?([^/]+)$/.exec(name) ?? [];
    const wanted = decodeURIComponent(id);
    const charge = byKey === undefined ? charges.find(wanted) : charges.findByKey(wanted);
    return charge === undefined ? fail(404, "not_found") : { status: 200, body: shown(charge) };
  }

  return createServer((request, response) => {
    route(request).then(
      (reply) => send(response, reply),
      () => send(response, fail(400, "request_invalid")),
    );
  });
}

/** Makes charges, once a key, and lets the calls go wrong as told. */
function chargeMaker({ charges, notices, behaviour, random }: FakeProviderServerOptions) {
  const underWay = new Set<string>();
  const tried = new Set<string>();

  function settleLater(charge: FakeCharge, later: "succeeded" | "declined"): void {
    const timer = setTimeout(() => {
      charges.settle(charge.id, later);
      notices.wake();
    }, behaviour.noticeDelayMs * pendingWaits);
    timer.unref();
  }
  // Of an earlier run nothing but the charge is known: its outcome is drawn anew.
  for (const charge of charges.pending) settleLater(charge, "succeeded");

  return async (key: string | string[] | undefined, body: Body): Promise<Reply> => {
    const wish = wishOf(body);
    if (typeof key !== "string" || key === "" || key.length > 255) return fail(400, "idempotency_key_missing");
    if (wish === undefined) return fail(400, "parameters_invalid");
    if (underWay.has(key)) return fail(409, "idempotency_key_in_use");
    underWay.add(key);
    try {
      await sleep(behaviour.delayMs * (0.5 + random.next()));
      const known = charges.findByKey(key);
      if (known !== undefined) {
        return isSame(known, wish) ? first(known) : fail(400, "idempotency_key_reused");
      }
      const fate = fateOf(wish.amount, !tried.has(key), behaviour, random);
      tried.add(key);
      if (fate.kind === "error before") return fail(500, "internal_error");
      if (fate.kind === "refuse") return fail(422, "account_restricted");
      const charge = charges.make({ ...wish, key, status: fate.kind === "answer" ? fate.outcome : "succeeded" });
      if (fate.kind === "answer" && fate.later !== undefined) settleLater(charge, fate.later);
      notices.wake();
      if (fate.kind === "error after") return fail(500, "internal_error");
      if (fate.kind === "silence after") return "silence";
      if (fate.kind === "reset after") return "reset";
      return first(charge);
    } finally {
      underWay.delete(key);
    }
  };
}

/** The answer of a key's first call. */
function first(charge: FakeCharge): Reply {
  const { firstStatus } = charge;
  return { status: firstStatus === "declined" ? 402 : 200, body: shown({ ...charge, status: firstStatus }) };
}

function shown({ firstStatus, ...charge }: FakeCharge): object {
  return { object: "charge", ...charge };
}

function wishOf(body: Body): Pick<FakeCharge, "amount" | "currency" | "metadata"> | undefined {
  const { amount, currency, metadata } = body;
  if (typeof amount !== "number" || !Number.isSafeInteger(amount) || amount < 1) return undefined;
  if (typeof currency !== "string" || !/^[A-Z]{3}$/.test(currency)) return undefined;
  if (typeof metadata !== "object" || metadata === null) return undefined;
  return { amount, currency, metadata: metadata as Record<string, string> };
}

function isSame(charge: FakeCharge, wish: Pick<FakeCharge, "amount" | "currency" | "metadata">): boolean {
  const { amount, currency, metadata } = charge;
  return JSON.stringify({ amount, currency, metadata }) === JSON.stringify(wish);
}

function fail(status: number, code: string): Reply {
  return { status, body: { code } };
}

async function bodyOf(request: IncomingMessage): Promise<Body> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > bodyBytesMax) throw new Error("The body is too long.");
    chunks.push(chunk);
  }
  return JSON.parse(Buffer.concat(chunks).toString("utf8")) as Body;
}

function send(response: ServerResponse, reply: Reply): void {
  if (reply === "reset") {
    response.destroy();
  } else if (reply !== "silence") {
    const text = JSON.stringify(reply.body);
    response.writeHead(reply.status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
    response.end(text);
  }
}

function isEqual(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}
