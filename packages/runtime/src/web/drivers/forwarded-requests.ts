/**
 * Requests that another region has forwarded to this one, recognised in front of everything else: whatever looks at one afterwards sees
 * the client's address, protocol and host. A header that is not believed ends the request. Were it passed over, a region that does not
 * believe another would take its processes for clients, and forward their requests back to them.
 */
import type { IncomingMessage, RequestListener } from "node:http";
import type { FastifyRequest } from "fastify";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import { type ForwardedFacts, type ForwardVerdict, forwardedHeader, type SignedRequest } from "../forward-signature.ts";
import { securityHeaders } from "../security-headers.ts";

/** A check in front of a server's requests. */
export interface ForwardedRequests {
  /** The listener to give to the server in place of `listener`. */
  wrap(listener: RequestListener): RequestListener;
  /** Requests taken since the start, and those refused, by reason. */
  readonly taken: () => number;
  readonly refusals: ReadonlyMap<string, number>;
}

const logEveryMs = 10_000;
const known = new WeakMap<IncomingMessage, ForwardedFacts>();

/** What is known of the client of a request that was forwarded to here; undefined for all others. */
export function forwardedFacts(raw: IncomingMessage): ForwardedFacts | undefined {
  return known.get(raw);
}

/** Makes the check. */
export function forwardedRequests(options: {
  readonly verify: (header: string, request: SignedRequest) => Promise<ForwardVerdict>;
  /** Where refusals are told; default nowhere. */
  readonly log?: Logger;
  readonly clock?: Clock;
}): ForwardedRequests {
  const { verify, log = silentLogger, clock = systemClock } = options;
  const refusals = new Map<string, number>();
  let taken = 0;
  let loggedAt = Number.NEGATIVE_INFINITY;

  /** Counts all, and logs one in a while: whoever floods this must not fill the disk. */
  function warn(reason: string, request: IncomingMessage): void {
    refusals.set(reason, (refusals.get(reason) ?? 0) + 1);
    const now = clock.monotonic();
    if (now - loggedAt < logEveryMs) return;
    loggedAt = now;
    const fields = { reason, address: request.socket.remoteAddress, refused: Object.fromEntries(refusals) };
    log.warn(fields, "a request was refused that claims to come from another region");
  }

  return {
    wrap: (listener) => (request, response) => {
      const header = request.headers[forwardedHeader];
      if (header === undefined) return void listener(request as never, response as never);
      const { method = "", url = "" } = request;
      const refuse = (reason: string) => {
        warn(reason, request);
        // Nothing says yet that the sender is none of ours: it may come again, as with any other overload.
        const status = reason === "full" ? 503 : 401;
        const said = reason === "replayed" ? reason : "denied";
        const retry = status === 503 ? { "retry-after": "1" } : { [forwardedHeader]: said };
        response
          .writeHead(status, { ...securityHeaders, ...retry, "cache-control": "no-store", "content-length": 0 })
          .end();
      };
      verify(String(header), { method, url }).then(
        (verdict) => {
          if ("refusal" in verdict) return refuse(verdict.refusal);
          taken++;
          believe(request, verdict.facts);
          listener(request as never, response as never);
        },
        () => refuse("unchecked"),
      );
    },
    taken: () => taken,
    refusals,
  };
}

/** Has Fastify's request say what the facts say, whoever it came from. */
export function showClient(request: FastifyRequest): void {
  const facts = known.get(request.raw);
  if (facts === undefined) return;
  const { address, host, protocol } = facts;
  Object.defineProperties(request, {
    ip: { value: address },
    ips: { value: [address] },
    host: { value: host },
    protocol: { value: protocol },
  });
}

/** Headers say the same as the facts, for those that read them. */
function believe(request: IncomingMessage, facts: ForwardedFacts): void {
  known.set(request, facts);
  const { headers } = request;
  delete headers[forwardedHeader];
  delete headers["forwarded"];
  headers.host = facts.host;
  headers["x-forwarded-for"] = facts.address;
  headers["x-forwarded-host"] = facts.host;
  headers["x-forwarded-proto"] = facts.protocol;
  headers["x-request-id"] = facts.requestId;
}
