/**
 * Forwarding on Fastify: requests that may change something go to the region of their data's leader before their body is read, and the
 * answer comes back as it is. The region where a request arrives has judged it by then: overload, limits of the client, cross-site rules.
 *
 * A route says `config: { region: "here" }` when its unsafe requests change nothing that a leader holds, and `region: "leader"` when its
 * safe ones do.
 *
 * Where nothing was sent, the leaders are asked anew, and the request goes on to where they are now, here perhaps; where they still are
 * said to be there, it is answered 503 with Retry-After.
 */
import type { IncomingMessage } from "node:http";
import { pipeline } from "node:stream/promises";
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from "fastify";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { type Logger, silentLogger } from "../../kernel/log.ts";
import {
  answerHeaders,
  isSafe,
  type LeaderPlaces,
  NotForwarded,
  regionOfWrite,
  requestHeaders,
  toldOf,
} from "../forward.ts";
import { type ForwardedFacts, forwardedHeader, type SignedRequest } from "../forward-signature.ts";
import { forwardedFacts } from "./forwarded-requests.ts";
import { readRest } from "./read-rest.ts";
import type { RegionLink } from "./region-link.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** Where requests are carried out: safe ones here and others at the leader by default, else all "here" or all at the "leader". */
    region?: "here" | "leader";
  }
}

/** What became of a forwarded request; "unknown": it may have taken effect; "abandoned": the client left first. */
export type ForwardOutcome = "answered" | "undelivered" | "unknown" | "denied" | "abandoned";

/** Refuses requests to a region that fails, so that none waits for it in vain; the circuit breaker of calls fits. */
export interface ForwardBreaker {
  /** Leave for one request; undefined when it is refused. */
  admit(): number | undefined;
  note(leave: number, outcome: "success" | "failure" | "nothing"): void;
}

/** Another region. */
export interface ForwardTarget {
  readonly link: RegionLink;
  readonly breaker: ForwardBreaker;
}

export interface FastifyForwardOptions {
  /** The region of this process. */
  readonly here: string;
  readonly targets: ReadonlyMap<string, ForwardTarget>;
  readonly places: LeaderPlaces;
  /** Number of the home database's shard; default 0. */
  readonly homeShard?: number;
  /** The shard of the signed-in user; undefined for nobody. Asked only while leaders are apart. */
  readonly userShard: (request: FastifyRequest) => Promise<number | undefined>;
  readonly sign: (request: SignedRequest, facts: ForwardedFacts, to: string) => string;
  /**
   * Told when the answer to a forwarded request has come, and waited for before it goes back: what the region then reads of the
   * request's session must not be older. Its failure is logged. Default: nothing.
   */
  readonly onForward?: (request: FastifyRequest) => Promise<void>;
  /** The trace that a request continues; default that of its own header. */
  readonly traceparentOf?: (request: FastifyRequest) => string | undefined;
  /** How long an answer may take to begin, beyond a route's own `requestTimeoutMs`. */
  readonly answerMs: number;
  /** Whether answers are to end their connections. */
  readonly isDraining: () => boolean;
  readonly observe: (region: string, outcome: ForwardOutcome, durationMs: number) => void;
  readonly log?: Logger;
  readonly clock?: Clock;
}

/** How long leaders are waited for that are asked anew. */
const askMsMax = 1_000;

/** Forwards from routes that are added afterwards. Call it before what limits requests, so that its hooks come after theirs. */
export function fastifyForward(fastify: FastifyInstance, options: FastifyForwardOptions): void {
  const forwarder = new Forwarder(options);
  fastify.addHook("onRoute", (route: RouteOptions) => {
    const region = route.config?.region;
    const methods = [route.method].flat();
    if (region === "here" || (region !== "leader" && methods.every((method) => isSafe(method.toUpperCase())))) return;
    route.onRequest = [
      async (request: FastifyRequest, reply: FastifyReply) => {
        if (region !== "leader" && isSafe(request.method)) return;
        await forwarder.handle(request, reply);
      },
      ...[route.onRequest ?? []].flat(),
    ];
  });
}

class Forwarder {
  private readonly options: FastifyForwardOptions;
  private readonly log: Logger;
  private readonly clock: Clock;

  constructor(options: FastifyForwardOptions) {
    this.options = options;
    this.log = options.log ?? silentLogger;
    this.clock = options.clock ?? systemClock;
  }

  /** Forwards the request and answers it, or does nothing: then it is this process's to carry out. */
  async handle(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    // One that was forwarded already is carried out here, wherever the leader is now.
    if (forwardedFacts(request.raw) !== undefined) return;
    let region = await this.regionOf(request);
    for (let tries = 1; region !== this.options.here; tries++) {
      const error = await this.forward(request, reply, region);
      if (error === undefined) return;
      const before: string = region;
      if (error.reason === "unreachable" || error.reason === "busy") await this.options.places.ask(askMsMax);
      if (error.reach === "none" && error.reason !== "denied") region = await this.regionOf(request);
      if (region === before || tries === 2)
        throw toldOf(error, `${request.method} ${request.routeOptions.url}`, before);
    }
  }

  private regionOf(request: FastifyRequest): string | Promise<string> {
    const { places, homeShard = 0, userShard } = this.options;
    return regionOfWrite(places, { homeShard, userShard: () => userShard(request) });
  }

  /** Undefined once the request is answered, or its client gone. */
  private async forward(
    request: FastifyRequest,
    reply: FastifyReply,
    region: string,
  ): Promise<NotForwarded | undefined> {
    const since = this.clock.monotonic();
    const ended = (outcome: ForwardOutcome) => this.options.observe(region, outcome, this.clock.monotonic() - since);
    const target = this.options.targets.get(region);
    const leave = target?.breaker.admit();
    if (target === undefined || leave === undefined) {
      ended("undelivered");
      const why = target === undefined ? "nobody said how to reach it" : "it did not answer of late";
      return new NotForwarded(`${why}.`, { reach: "none", reason: "unreachable" });
    }
    const client = goneSignal(request, reply);
    let judged: "success" | "failure" | "nothing" = "nothing";
    let isBroken = false;
    try {
      const answer = await this.send(request, { region, link: target.link, signal: client.signal });
      judged = "success";
      // One that breaks off takes the client's connection with it: which was first is known only now.
      answer.once("error", () => {
        isBroken = !client.signal.aborted;
      });
      await this.tell(request);
      await this.passOn(answer, request, reply);
      ended("answered");
      return undefined;
    } catch (error) {
      if (client.signal.aborted || reply.sent) {
        // An answer that broke off can only be cut.
        reply.hijack();
        reply.raw.destroy();
        ended(isBroken ? "unknown" : "abandoned");
        return undefined;
      }
      if (!(error instanceof NotForwarded)) throw error;
      if (error.reason !== "busy") judged = "failure";
      ended(error.reason === "denied" ? "denied" : error.reach === "none" ? "undelivered" : "unknown");
      return error;
    } finally {
      target.breaker.note(leave, judged);
      client.forget();
    }
  }

  private async send(
    request: FastifyRequest,
    { region, link, signal }: { readonly region: string; readonly link: RegionLink; readonly signal: AbortSignal },
  ): Promise<IncomingMessage> {
    const { here, sign, traceparentOf, answerMs } = this.options;
    const { raw, method, id } = request;
    const url = raw.url ?? "/";
    const protocol = request.protocol === "https" ? "https" : "http";
    const facts = { from: here, requestId: id, address: request.ip, protocol, host: request.host } as const;
    const hasBody = raw.headers["transfer-encoding"] !== undefined || Number(raw.headers["content-length"] ?? 0) > 0;
    const ownMs = request.routeOptions.config.requestTimeoutMs ?? 0;
    const answer = await link.send({
      ...{ method, url, signal },
      headers: requestHeaders(raw.rawHeaders, {
        host: link.host,
        forwarded: sign({ method, url }, facts, region),
        requestId: id,
        traceparent: traceparentOf?.(request),
        hasBody,
      }),
      body: hasBody ? raw : undefined,
      answerMs: Math.max(answerMs, ownMs),
    });
    const refusal = answer.headers[forwardedHeader];
    if (refusal === undefined) return answer;
    answer.resume();
    this.log.error({ region, refusal }, "another region does not believe what this one forwards");
    const message =
      "it does not take this process for one of its app. Both need the same home database, and clocks that agree.";
    // What a balancer sent again there may have been taken the first time.
    throw new NotForwarded(message, { reach: refusal === "denied" ? "none" : "unknown", reason: "denied" });
  }

  private async passOn(answer: IncomingMessage, { raw }: FastifyRequest, reply: FastifyReply): Promise<void> {
    const { statusCode = 502, statusMessage, rawHeaders } = answer;
    const headers = answerHeaders(rawHeaders, reply.getHeaders());
    // One that is refused before its body has come whole: what still comes is read, or the client may never see why.
    const isRefusal = statusCode >= 400 && !raw.complete;
    if (isRefusal) raw.unpipe();
    const isWhole = !isRefusal || (await readRest(raw));
    if (!isWhole || this.options.isDraining()) headers.push("Connection", "close");
    reply.hijack();
    reply.raw.writeHead(statusCode, statusMessage ?? "", headers);
    // A stream's first event may be long in coming, and its head is waited for.
    if (answer.headers["content-length"] === undefined) reply.raw.flushHeaders();
    // It listens for the end several times over, as the hooks do: more than the ten at which Node warns of a leak in each such request.
    reply.raw.setMaxListeners(32);
    await pipeline(answer, reply.raw);
  }

  private async tell(request: FastifyRequest): Promise<void> {
    try {
      await this.options.onForward?.(request);
    } catch (error) {
      this.log.warn({ error }, "a forwarded request could not be noted");
    }
  }
}

/** Aborted when the client is gone before it was answered; `forget` when that is no concern any more. */
function goneSignal(request: FastifyRequest, reply: FastifyReply): { readonly signal: AbortSignal; forget(): void } {
  const gone = new AbortController();
  const leave = () => {
    if (!reply.raw.writableFinished) gone.abort(new Error("The client is gone."));
  };
  if (request.raw.destroyed && !request.raw.complete) leave();
  reply.raw.once("close", leave);
  return { signal: gone.signal, forget: () => reply.raw.off("close", leave) };
}
