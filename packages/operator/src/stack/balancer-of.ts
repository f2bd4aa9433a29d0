/** The balancer of a planned stack: its limits are those of the app. */
import { type Balancer, networksOf } from "./balancer.ts";
import type { StackPlan } from "./stack-plan.ts";
import type { Edge } from "./varnish-config.ts";

const megabyte = 1024 * 1024;
/**
 * Requests under way for each web process. A process that answers 1,000 a second has answered as many in a quarter of a second, so what
 * is beyond would wait too long anyway; the process itself refuses by what it measures, at the price of its own time.
 */
const underWayPerProcess = { signedIn: 256, anonymous: 128, bot: 64 };

/** Joins the topology's limits, what the app says of its paths, and the places. */
export function balancerOf(
  { topology, app, places, processes, hasVarnish }: StackPlan,
  { appPort, ports }: { readonly appPort: number; readonly ports: Readonly<Record<string, number>> },
): Balancer {
  const { bodyLimitBytes, requestTimeoutMs, host } = topology.web;
  return {
    listen: hasVarnish ? { host: "127.0.0.1", port: ports["balancer"] as number } : { host, port: appPort },
    servers: Array.from({ length: places }, (_, index) => {
      const name = `web-${index + 1}`;
      return { name, host: "127.0.0.1", port: ports[name] as number };
    }),
    // The edge in front of it says itself who asks, and believes only the proxies in front of that.
    trusted: networksOf([...(hasVarnish ? ["loopback"] : []), ...topology.web.trustProxy]),
    limits: {
      bodyBytes: bodyLimitBytes,
      headersMs: Math.min(10_000, requestTimeoutMs),
      bodyMs: requestTimeoutMs,
      // The app's own limit comes first, with an answer that says more.
      answerMs: requestTimeoutMs + 5_000,
      connectMs: 500,
      keepAliveMs: 60_000,
      upstreamKeepAliveMs: 2_000,
      headersBytes: 16 * 1024,
      underWayMax: {
        signedIn: processes * underWayPerProcess.signedIn,
        anonymous: processes * underWayPerProcess.anonymous,
        bot: processes * underWayPerProcess.bot,
      },
    },
    routes: {
      uploads: app.balancer.uploads.map(({ path, bodyLimitMegabytes, timeoutMs }) => ({
        path,
        timeoutMs,
        bodyLimitBytes: bodyLimitMegabytes * megabyte,
      })),
      streams: app.balancer.streams,
      hidden: ["/metrics", ...app.balancer.hidden],
    },
  };
}

/** The CDN's point of presence in front of it. */
export function edgeOf(
  { topology, app }: StackPlan,
  { ports, secret }: { readonly ports: Readonly<Record<string, number>>; readonly secret: string },
): Edge {
  return {
    origin: { host: "127.0.0.1", port: ports["balancer"] as number },
    secret,
    trusted: networksOf(topology.web.trustProxy),
    files: ["/assets", ...app.cdn.files],
    hidden: ["/metrics", ...app.balancer.hidden],
    // Behind that of the balancer, whose answer says more.
    answerMs:
      Math.max(topology.web.requestTimeoutMs, ...app.balancer.uploads.map(({ timeoutMs }) => timeoutMs)) + 10_000,
  };
}
