/**
 * Overload protection: refuses early what could not be answered in time anyway, so that goodput stays flat past saturation.
 *
 * What counts is how long a request that comes now will wait. Little's law says it: as long as it takes to finish those before it, their
 * number divided by the rate at which they finish (Little, "A Proof for the Queuing Formula L = λW", 1961). The rate is measured while
 * the process is saturated; what is under way in one that is not only waits for something slow. A late event loop alone would not tell:
 * handlers that wait for a database step aside for each other, so the loop is hardly late while hundreds wait.
 *
 * Once the wait has been too long, or the loop too late, for half a second, each request is judged by the wait that it finds. There is no
 * share of the load that is adjusted step by step and swings around the right one. Each class of requests is given a part of the
 * longest wait, in order of worth: health checks always go on, then signed-in users, then others, declared bots last (as in
 * WeChat's DAGOR, Zhou et al., "Overload Control for Scaling WeChat Microservices", 2018).
 */

/** Classes of requests, the ones shed last first. */
export const requestClasses = ["signedIn", "anonymous", "bot"] as const;
export type RequestClass = (typeof requestClasses)[number];

/** What was admitted and shed since the start. */
export interface OverloadStats {
  /** Whether requests are refused now. */
  readonly isOverloaded: boolean;
  /** How many may be under way now; infinite unless overloaded. */
  readonly underWayMax: number;
  readonly admitted: number;
  readonly shed: Readonly<Record<RequestClass, number>>;
}

export interface OverloadOptions {
  /** A loop that is later, in ms, is a sign of overload. */
  readonly latenessMsMax: number;
  /** Longest wait for those under way, in ms. */
  readonly waitMsMax: number;
  /** So many may always be under way, and fewer are no overload: something else has the machine. */
  readonly requestsMin: number;
}

/** What happened since the last tick. */
export interface OverloadTick {
  readonly underWay: number;
  /** How late the event loop was at the worst. */
  readonly latenessMs: number;
  readonly finished: number;
  readonly elapsedMs: number;
  /** Whether the process had no time to spare: its loop never idle, or requests waiting for connections. */
  readonly isSaturated: boolean;
}

/** Part of the longest wait that each class is given. */
const partOf: Readonly<Record<RequestClass, number>> = { signedIn: 1, anonymous: 0.5, bot: 0.25 };
/** A burst, or a pause of the process, is no overload: so long, and so many ticks in a row, until anything is refused, and until nothing is. */
const patienceMs = 500;
const patienceTicks = 2;
/** Time over which the rate is averaged. */
const rateMs = 500;
/**
 * The greatest average counts, and fades only in this time (as in BBR, Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016): a
 * process that is let do less than it could would otherwise take that for all it can.
 */
const rateFadesMs = 20_000;

/** Decides request by request; `tick` is called at regular intervals, which are longer when the loop is late. */
export class OverloadGate {
  private readonly options: OverloadOptions;
  private perMs = 0;
  private perMsBest = 0;
  private arrivals = 0;
  private readonly over = { ms: 0, ticks: 0 };
  private calmMs = 0;
  private isOn = false;
  private readonly counts = { admitted: 0, shed: { signedIn: 0, anonymous: 0, bot: 0 } };

  constructor(options: OverloadOptions) {
    this.options = options;
  }

  /** Whether one more request of that class may go on. */
  admit(kind: RequestClass, underWay: number): boolean {
    this.arrivals++;
    if (!this.isOn || underWay < this.underWayMax() * partOf[kind]) {
      this.counts.admitted++;
      return true;
    }
    this.counts.shed[kind]++;
    return false;
  }

  /** Measures, and decides whether there is overload. */
  tick({ underWay, latenessMs, finished, elapsedMs, isSaturated }: OverloadTick): void {
    const { latenessMsMax, requestsMin } = this.options;
    if (isSaturated) {
      const weight = this.perMs === 0 ? 1 : 1 - Math.exp(-elapsedMs / rateMs);
      this.perMs += weight * (finished / Math.max(1, elapsedMs) - this.perMs);
      this.perMsBest = Math.max(this.perMs, this.perMsBest * Math.exp(-elapsedMs / rateFadesMs));
    }
    const isLate = latenessMs > latenessMsMax && Math.max(this.arrivals, underWay) >= requestsMin;
    this.arrivals = 0;
    const isOver = isLate || (isSaturated && underWay > this.underWayMax());
    this.over.ms = isOver ? this.over.ms + elapsedMs : 0;
    this.over.ticks = isOver ? this.over.ticks + 1 : 0;
    this.calmMs = isLate || isSaturated ? 0 : this.calmMs + elapsedMs;
    if (this.over.ms >= patienceMs && this.over.ticks >= patienceTicks) this.isOn = true;
    if (this.calmMs < patienceMs) return;
    this.isOn = false;
    this.perMs = 0;
    this.perMsBest = 0;
  }

  stats(): OverloadStats {
    const underWayMax = this.isOn ? this.underWayMax() : Number.POSITIVE_INFINITY;
    return { isOverloaded: this.isOn, underWayMax, admitted: this.counts.admitted, shed: { ...this.counts.shed } };
  }

  private underWayMax(): number {
    return Math.max(this.options.requestsMin, this.perMsBest * this.options.waitMsMax);
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
