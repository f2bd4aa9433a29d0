/** Overload protection in front of a Node HTTP server: before routing, hooks and logs, so that a refusal costs next to nothing. */
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http";
import type { Clock } from "../../kernel/clock.ts";
import type { Random } from "../../kernel/random.ts";
import { watchLoop } from "../loop-lateness.ts";
import { classOf, OverloadGate, type OverloadStats } from "../overload.ts";
import { securityHeaders } from "../security-headers.ts";

export interface ShedOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Lateness of the event loop that is still fine; default 100 ms. */
  readonly loopLatenessMsMax?: number;
  /** Fewer requests under way are no overload, however late the loop is: something else has the machine. Default 16. */
  readonly requestsMin?: number;
  /** Another sign of overload, 1 at its target, e.g. the waiting for database connections; default none. */
  readonly pressure?: () => number;
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

const body = JSON.stringify({ errors: { body: ["too many requests right now; please try again"] } });
/** Spread over three seconds, so that those who were refused do not come back together. */
const retryAfterSecondsMax = 3;

/** Starts watching. */
export function createShedder(options: ShedOptions): Shedder {
  const { clock, random, loopLatenessMsMax = 100, requestsMin = 16, pressure, tickMs = 50 } = options;
  const gate = new OverloadGate({ random });
  const loop = watchLoop(clock);
  let underWay = 0;
  let mostUnderWay = 0;
  const timer = setInterval(() => {
    const lateness = loop.take() / loopLatenessMsMax;
    const isBusy = mostUnderWay >= requestsMin;
    mostUnderWay = underWay;
    gate.tick(isBusy ? Math.max(lateness, pressure?.() ?? 0) : 0);
  }, tickMs).unref();
  const leave = () => {
    underWay--;
  };
  const refuse = (response: ServerResponse) => {
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
      if (kind !== "always" && !gate.admit(kind)) return refuse(response);
      underWay++;
      mostUnderWay = Math.max(mostUnderWay, underWay);
      response.once("close", leave);
      listener(request as never, response as never);
    },
    stats: () => gate.stats(),
    stop() {
      clearInterval(timer);
      loop.stop();
    },
  };
}
