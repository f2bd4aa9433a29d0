/**
 * A load balancer as data: what it listens on, where it sends requests, which limits it holds. Drivers render it (nginx, HAProxy);
 * nothing here knows one of them, so that an exporter for another one, such as AWS's, needs nothing else.
 */

import type { RoutingRule } from "./routing-rules.ts";

/** A place where a web process listens, or may listen later. */
export interface BalancedServer {
  readonly name: string;
  readonly host: string;
  readonly port: number;
}

/** Paths whose requests are long or large. */
export interface BalancedRoutes {
  /** Path prefixes that take uploads: streamed to the app as they arrive, with a limit and times of their own. */
  readonly uploads: readonly { readonly path: string; readonly bodyLimitBytes: number; readonly timeoutMs: number }[];
  /** Path prefixes of server-sent events and websockets: open for as long as the page is. */
  readonly streams: readonly string[];
  /** Paths that are not for the outside; answered 404. */
  readonly hidden: readonly string[];
}

/** Groups of services in processes of their own. */
export interface SplitServices {
  /** Those beside `web`, each with all its places. */
  readonly groups: readonly { readonly name: string; readonly servers: readonly BalancedServer[] }[];
  /** Ports of loopback at which the app's processes reach a group, `web` included, by its name. Only calls are answered there. */
  readonly internalPorts: Readonly<Record<string, number>>;
  /** Which group a request is for: the first rule that fits counts, and `web` gets what fits none. */
  readonly rules: readonly RoutingRule[];
}

/** The whole balancer. */
export interface Balancer {
  readonly listen: { readonly host: string; readonly port: number };
  /** Port of loopback for requests that other regions forward. Default none. */
  readonly forwardedPort?: number | undefined;
  /**
   * All places, free ones included. A free place refuses the connection, which is passed on to the next place for every method,
   * because nothing was sent. So web processes come and go without a change of the configuration.
   */
  readonly servers: readonly BalancedServer[];
  /** Proxies in front of the balancer, such as a CDN, as networks: only these are believed about who asks. Default none. */
  readonly trusted: readonly string[];
  readonly limits: {
    readonly bodyBytes: number;
    /** A client must have sent its headers, and each part of its body, within these. */
    readonly headersMs: number;
    readonly bodyMs: number;
    /** Longest wait for the app's next byte. */
    readonly answerMs: number;
    readonly connectMs: number;
    /** Idle time of a client's connection. */
    readonly keepAliveMs: number;
    /** Idle time of a connection to a web process; shorter than what a draining process waits for. */
    readonly upstreamKeepAliveMs: number;
    /** All headers of a request together; not above the app's own 16 KiB. */
    readonly headersBytes: number;
    /** Requests that wait for answers at once, streams and uploads aside: more are refused with 503 before they cost a process anything. */
    readonly underWayMax: Readonly<Record<"signedIn" | "anonymous" | "bot", number>>;
  };
  readonly routes: BalancedRoutes;
  /** Default none: everything goes to `servers`. */
  readonly split?: SplitServices | undefined;
}

/** Path below which processes answer calls of other groups; hidden from the outside. */
export const callPath = "/internal/call";

/**
 * How clients are told apart for `underWayMax`, as the app does (web/overload.ts of rungs), so that both refuse the same requests first:
 * declared bots, whatever else they say, then who claims a session by a cookie or sends Authorization. Regular expressions (PCRE).
 */
export const clientClasses = {
  /** For User-Agent; letters of either case. */
  botAgent: String.raw`(?<!\bcu)bot\b|crawl|spider|slurp|facebookexternalhit|preview|archiver|scrapy`,
  /** For Cookie. */
  sessionCookie: String.raw`(?:^|;\s*)(?:__Host-)?session=`,
  /** Paths that are always answered. */
  probes: ["/healthz", "/readyz"],
} as const;

/** A path as part of a regular expression (PCRE), which it fits as it is. */
export function escapePath(path: string): string {
  return path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}

/** Seconds that a place which failed gets no requests. */
export const failSeconds = 1;
/** What a client is told to wait when nobody answers. */
export const retryAfterSeconds = 2;

/** Headers in which clients could lie about themselves, or about the address they ask for; the last is one region's word to another. */
export const untrustedHeaders = [
  "Forwarded",
  "X-Forwarded-Port",
  "X-Forwarded-Prefix",
  "X-Original-URL",
  "X-Rewrite-URL",
  "Rungs-Forwarded",
] as const;

const namedNetworks: Readonly<Record<string, readonly string[]>> = {
  loopback: ["127.0.0.0/8", "::1/128"],
  linklocal: ["169.254.0.0/16", "fe80::/10"],
  uniquelocal: ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
};

/** Networks of a list as in `web.trustProxy`, which may name some by a word (as the package proxy-addr does). */
export function networksOf(trustProxy: readonly string[]): string[] {
  return trustProxy.flatMap((name) => namedNetworks[name] ?? [name]);
}

/** What people see when no web process answers. */
export const unavailablePage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Back in a moment</title>
<style>
  body { font: 1.1rem/1.6 system-ui, sans-serif; max-width: 32rem; margin: 20vh auto; padding: 0 1rem; color: #333 }
  @media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } }
</style>
<h1>Back in a moment</h1>
<p>The site does not answer just now. Please try again in a few seconds.</p>
</html>
`;

/** The same for programs. */
export const unavailableJson = `${JSON.stringify({ errors: { body: ["the service does not answer just now; please try again"] } })}\n`;
