/**
 * Overload protection: refuses early what could not be answered in time anyway, so that goodput stays flat past saturation.
 *
 * The sign of overload is how late the event loop is: everything that a request waits for in this process, its socket
 * included, waits for the loop. A second sign may be given by the caller, such as requests that wait for a database
 * connection. Each sign is a pressure: 1 is "at the target".
 *
 * Every `tickMs` the admitted share of the load is adjusted: down in proportion to the pressure above 1, up by a small step
 * below it (additive increase, multiplicative decrease; Chiu and Jain, "Analysis of the Increase and Decrease Algorithms",
 * 1989). The share is given to the classes of requests in order of worth: health checks always, then signed-in users, then
 * others, declared bots last (as in WeChat's DAGOR, Zhou et al., "Overload Control for Scaling WeChat Microservices", 2018).
 */
import type { Random } from "../kernel/random.ts";

/** Classes of requests, the ones shed last first. */
export const requestClasses = ["signedIn", "anonymous", "bot"] as const;
export type RequestClass = (typeof requestClasses)[number];

/** What was admitted and shed since the start. */
export interface OverloadStats {
  /** Share of the load that is admitted now, 0 to 1. */
  readonly admittedShare: number;
  readonly admitted: number;
  readonly shed: Readonly<Record<RequestClass, number>>;
}

export interface OverloadOptions {
  readonly random: Random;
  /** Least share that is admitted, so that recovery is noticed; default 0.02. */
  readonly shareMin?: number;
}

/** Multiplicative decrease a tick at most: a burst must not close the door. */
const decreaseMax = 0.3;
/** Ticks in a row above the target before anything is shed: a pause of the process is no overload. */
const patienceTicks = 10;
/** Additive increase a tick: from half to whole in a second of 50 ms ticks. */
const increase = 0.025;
/** Weight of the newest tick in the average of each class's arrivals. */
const arrivalWeight = 0.2;

/** Decides request by request; `tick` is called at fixed intervals. */
export class OverloadGate {
  private readonly random: Random;
  private readonly shareMin: number;
  private share = 1;
  private ticksAbove = 0;
  private readonly arrivals = { signedIn: 0, anonymous: 0, bot: 0 };
  private readonly average = { signedIn: 0, anonymous: 0, bot: 0 };
  private readonly chance = { signedIn: 1, anonymous: 1, bot: 1 };
  private readonly counts = { admitted: 0, shed: { signedIn: 0, anonymous: 0, bot: 0 } };

  constructor({ random, shareMin = 0.02 }: OverloadOptions) {
    this.random = random;
    this.shareMin = shareMin;
  }

  /** Whether a request of that class may go on. */
  admit(kind: RequestClass): boolean {
    this.arrivals[kind]++;
    const chance = this.chance[kind];
    if (chance >= 1 || this.random.next() < chance) {
      this.counts.admitted++;
      return true;
    }
    this.counts.shed[kind]++;
    return false;
  }

  /** Adjusts the admitted share to the pressure since the last tick. */
  tick(pressure: number): void {
    this.ticksAbove = pressure > 1 ? this.ticksAbove + 1 : 0;
    if (pressure <= 1) this.share += increase;
    else if (this.share < 1 || this.ticksAbove >= patienceTicks) {
      this.share *= 1 - Math.min(decreaseMax, (pressure - 1) / 4);
    }
    this.share = Math.min(1, Math.max(this.shareMin, this.share));
    for (const kind of requestClasses) {
      this.average[kind] += arrivalWeight * (this.arrivals[kind] - this.average[kind]);
      this.arrivals[kind] = 0;
    }
    this.spread();
  }

  stats(): OverloadStats {
    return { admittedShare: this.share, admitted: this.counts.admitted, shed: { ...this.counts.shed } };
  }

  /** Gives the share to the classes in order; what is left after the better ones is the next one's. */
  private spread(): void {
    const total = requestClasses.reduce((sum, kind) => sum + this.average[kind], 0);
    let left = this.share * total;
    for (const kind of requestClasses) {
      const wanted = this.average[kind];
      // A class that has hardly been seen gets the whole door or none of it, by what the better ones left.
      this.chance[kind] = this.share >= 1 ? 1 : wanted > 0 ? Math.min(1, Math.max(0, left / wanted)) : left > 0 ? 1 : 0;
      left -= Math.min(left, wanted);
    }
  }
}

/**
 * Programs that say they are one. Those that do not, cannot be told from people by a header. The words are those of the
 * common crawlers' documentation (Googlebot, bingbot, Applebot, GPTBot, ClaudeBot, CCBot, Bytespider, ...).
 */
// Cubot makes telephones.
const botAgent = /(?<!\bcu)bot\b|crawl|spider|slurp|facebookexternalhit|preview|archiver|scrapy/i;
const sessionCookie = /(?:^|;\s*)(?:__Host-)?session=/;
const alwaysAdmitted = /^\/(?:healthz|readyz|metrics)(?:\?|$)/;

/**
 * The class of a request by its headers alone, before anything is looked up; "always" for health checks and metrics. A
 * session is claimed here, not proven: whoever sends a false cookie is shed later, and that costs a look-up.
 */
export function classOf(request: {
  readonly url?: string | undefined;
  readonly headers: { readonly [name: string]: string | readonly string[] | undefined };
}): RequestClass | "always" {
  const { url = "", headers } = request;
  if (alwaysAdmitted.test(url)) return "always";
  if (botAgent.test(String(headers["user-agent"] ?? ""))) return "bot";
  if (headers["authorization"] !== undefined || sessionCookie.test(String(headers["cookie"] ?? ""))) return "signedIn";
  return "anonymous";
}
