/** Overload protection in front of a Node HTTP server: before routing, hooks and logs, so that a refusal costs next to nothing. */
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import { performance } from "node:perf_hooks";
import type { Clock } from "../../kernel/clock.ts";
import type { Random } from "../../kernel/random.ts";
import { HeldRefusals } from "../held-refusals.ts";
import { watchLoop } from "../loop-lateness.ts";
import { classOf, OverloadGate, type OverloadStats } from "../overload.ts";
import { securityHeaders } from "../security-headers.ts";

export interface ShedOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Lateness of the event loop that is still fine; default 100 ms. */
  readonly loopLatenessMsMax?: number;
  /** How long a request may wait for those before it while the process is saturated; default one and a half times `loopLatenessMsMax`. */
  readonly waitMsMax?: number;
  /** Fewer requests are no overload, however late the loop is: something else has the machine. Default 16. */
  readonly requestsMin?: number;
  /** Whether requests wait for something else than the loop that there is too little of, such as connections; default never. */
  readonly isPressed?: () => boolean;
  /** Default 50 ms. */
  readonly tickMs?: number;
}

/** A gate around a server's requests. */
export interface Shedder {
  /** The listener to give to the server in place of `listener`. */
  wrap(listener: RequestListener): RequestListener;
  stats(): OverloadStats;
  stop(): void;
}

/** A loop that is idle for less than a tenth of the time has none to spare. */
const saturated = 0.9;
/** A larger body comes as fast as its sender can. */
const longBodyBytes = 1_048_576;

const body = JSON.stringify({ errors: { body: ["too many requests right now; please try again"] } });
/** How long a refusal is held, see `held-refusals.ts`, and how many at most: hardly more than a balancer lets through. */
const holdMs = 200;
const heldMax = 1_024;
/** Spread over three seconds, so that those who were refused do not come back together. */
const retryAfterSecondsMax = 3;

/** Starts watching. */
export function createShedder(options: ShedOptions): Shedder {
  const { clock, random, loopLatenessMsMax = 100, requestsMin = 16, isPressed, tickMs = 50 } = options;
  const { waitMsMax = 1.5 * loopLatenessMsMax } = options;
  const gate = new OverloadGate({ latenessMsMax: loopLatenessMsMax, waitMsMax, requestsMin });
  let underWay = 0;
  let finished = 0;
  let left = 0;
  const held = new HeldRefusals<ServerResponse>({ holdMs, countMax: heldMax });
  // Who is answered counts until the loop has turned: requests that wait for this turn's end waited for theirs too.
  const loop = watchLoop(clock, () => {
    underWay -= left;
    left = 0;
  });
  let tickedAt = clock.monotonic();
  let utilization = performance.eventLoopUtilization();
  const timer = setInterval(() => {
    const now = clock.monotonic();
    const used = performance.eventLoopUtilization();
    const isBusy = performance.eventLoopUtilization(used, utilization).utilization > saturated;
    const isSaturated = isBusy || isPressed?.() === true;
    gate.tick({ underWay, latenessMs: loop.take(), finished, elapsedMs: now - tickedAt, isSaturated });
    finished = 0;
    tickedAt = now;
    utilization = used;
    for (const response of held.due(now)) answerRefused(response);
  }, tickMs).unref();
  const leave = () => {
    left++;
    finished++;
  };
  const answerRefused = (response: ServerResponse) => {
    const retryAfter = 1 + Math.floor(random.next() * retryAfterSecondsMax);
    response
      .writeHead(503, {
        ...securityHeaders,
        "content-type": "application/json; charset=utf-8",
        "cache-control": "no-store",
        "retry-after": String(retryAfter),
        "content-length": Buffer.byteLength(body),
      })
      .end(body);
  };
  return {
    wrap: (listener) => (request: IncomingMessage, response: ServerResponse) => {
      const kind = classOf(request);
      if (kind !== "always" && !gate.admit(kind, underWay)) {
        const isHeld = kind !== "signedIn" && held.add(response, clock.monotonic());
        if (!isHeld) answerRefused(response);
        return;
      }
      if (!isLong(request)) {
        underWay++;
        response.once("close", leave);
      }
      listener(request as never, response as never);
    },
    stats: () => gate.stats(),
    stop() {
      clearInterval(timer);
      for (const response of held.due(Number.POSITIVE_INFINITY)) answerRefused(response);
      loop.stop();
    },
  };
}

/** Live streams and uploads last as long as the other side wants: how many there are says nothing of the load. */
function isLong({ headers }: IncomingMessage): boolean {
  if (headers.accept === "text/event-stream" || headers["transfer-encoding"] !== undefined) return true;
  return Number(headers["content-length"] ?? 0) > longBodyBytes;
}
