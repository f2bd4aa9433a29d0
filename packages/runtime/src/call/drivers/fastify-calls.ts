/**
 * Calls on Fastify: the route by which other processes call the methods of this one, and what requests hand on to the calls made in
 * them. The route is not for the outside, and nothing is done for whoever does not sign.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import { callContentType, callHeaders, callPath, callPathOf } from "../call-request.ts";
import { type CallScope, inCallScope } from "../call-scope.ts";
import type { SignatureVerdict, SignedParts } from "../call-signature.ts";
import { callBytesMax, deadlineMsMax } from "../method.ts";
import type { IncomingCall, ServedMethods } from "../served-methods.ts";
import { readTraceparent } from "../trace-context.ts";
import { type CallAnswer, errorText, type WireError } from "../wire.ts";

declare module "fastify" {
  interface FastifyRequest {
    rungsCallScope: CallScope | null;
  }
}

export interface ServeCallsOptions<C> {
  readonly served: ServedMethods<C>;
  readonly context: C;
  readonly verify: (header: string | undefined, parts: SignedParts) => Promise<SignatureVerdict>;
  /** Where refusals are told; default nowhere. */
  readonly log?: Logger;
  readonly clock?: Clock;
}

/** Requests that were refused for their signature, by reason. */
export type CallRefusals = ReadonlyMap<string, number>;

/** Statuses that no balancer takes for its own, nor for a reason to send the request elsewhere. */
const statusOf: Readonly<Record<WireError["kind"], number>> = {
  config: 400,
  unsupported: 404,
  conflict: 409,
  declared: 422,
  unavailable: 500,
  failed: 500,
};

const logEveryMs = 10_000;

/** Adds the route. What limits requests has to be there before, to learn that this route has none. */
export function serveCalls<C>(fastify: FastifyInstance, options: ServeCallsOptions<C>): CallRefusals {
  const { served, context, verify } = options;
  const refusals = new Map<string, number>();
  const warn = refusalLog(options, refusals);
  fastify.addContentTypeParser(
    callContentType,
    { parseAs: "buffer", bodyLimit: callBytesMax },
    (_request, body, done) => done(null, body),
  );
  // As other tiers call it, whose types are not known here: a signature stands for the session, and callers have bounds of their own.
  const config = { csrf: "off", rateLimit: "off", region: "here" } as object;
  fastify.post<{ Params: { service: string; method: string } }>(
    `${callPath}/:service/:method`,
    { config, bodyLimit: callBytesMax },
    async (request, reply) => {
      const { service, method } = request.params;
      const name = `${service}.${method}`;
      const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0);
      const signed = signedParts(request, name, body);
      const verdict = await verify(request.headers.authorization, signed);
      if ("refusal" in verdict) {
        warn(verdict.refusal, request);
        // Nothing says yet that the caller is none of ours: it may come again, as with any other overload.
        if (verdict.refusal === "full") return reply.code(503).header("retry-after", "1").send();
        return reply.code(401).header(callHeaders.kind, "denied").header("cache-control", "no-store").send();
      }
      const call = { ...incoming(signed, reply), name, caller: verdict.caller, text: body.toString("utf8") };
      const { answer, reads } = await served.answerAfar({ ...call, reads: signed.reads || undefined }, context);
      return send(reply, answer, reads);
    },
  );
  return refusals;
}

/** Gives each request a time and a trace, for the calls made in it. `requestTimeoutMs`: when nobody waits for its answer any more. */
export function scopeCalls(
  fastify: FastifyInstance,
  options: { readonly requestTimeoutMs: number; readonly clock?: Clock },
): void {
  const { requestTimeoutMs, clock = systemClock } = options;
  fastify.decorateRequest("rungsCallScope", null);
  fastify.addHook("onRequest", (request, reply, done) => {
    const scope: CallScope = {
      deadlineAt: clock.monotonic() + requestTimeoutMs,
      traceparent: readTraceparent(request.headers["traceparent"]),
    };
    request.rungsCallScope = scope;
    reply.raw.once("close", () => {
      scope.isOver = true;
    });
    inCallScope(scope, done);
  });
  // The events of a body that arrives come from outside the scope.
  fastify.addHook("preValidation", (request, _reply, done) => {
    if (request.rungsCallScope === null) done();
    else inCallScope(request.rungsCallScope, done);
  });
}

function signedParts({ headers }: FastifyRequest, name: string, body: Buffer): SignedParts {
  const textOf = (header: string) => String(headers[header] ?? "");
  return {
    path: callPathOf(name),
    deadlineMs: textOf(callHeaders.deadline),
    idempotencyKey: textOf(callHeaders.key),
    traceparent: textOf(callHeaders.traceparent),
    reads: textOf(callHeaders.reads),
    body,
  };
}

/** Whoever signed is one of ours, so what it signed has the form it should have; a time out of bounds is brought into them. */
function incoming(
  { deadlineMs, idempotencyKey, traceparent }: SignedParts,
  reply: FastifyReply,
): Omit<IncomingCall, "name" | "text" | "caller"> {
  const gone = new AbortController();
  reply.raw.once("close", () => {
    if (!reply.raw.writableFinished) gone.abort(new Error("The caller is gone."));
  });
  const givenMs = Math.min(deadlineMsMax, Math.max(1, Number(deadlineMs) || 1));
  return { givenMs, idempotencyKey, traceparent, signal: gone.signal };
}

function send(reply: FastifyReply, answer: CallAnswer, reads: string | undefined): FastifyReply {
  reply.header(callHeaders.kind, "answer").header("cache-control", "no-store");
  if (reads !== undefined) reply.header(callHeaders.reads, reads);
  reply.type("application/json; charset=utf-8");
  if (answer.isOk) return reply.code(200).send(answer.text);
  return reply.code(statusOf[answer.error.kind]).send(errorText(answer.error));
}

/** Counts all, and logs one in a while: whoever floods this must not fill the disk. */
function refusalLog<C>(
  { log = silentLogger, clock = systemClock }: ServeCallsOptions<C>,
  refusals: Map<string, number>,
): (reason: string, request: FastifyRequest) => void {
  let loggedAt = Number.NEGATIVE_INFINITY;
  return (reason, request) => {
    refusals.set(reason, (refusals.get(reason) ?? 0) + 1);
    const now = clock.monotonic();
    if (now - loggedAt < logEveryMs) return;
    loggedAt = now;
    log.warn({ reason, address: request.ip, refused: Object.fromEntries(refusals) }, "a call was refused");
  };
}
