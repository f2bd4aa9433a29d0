/** The balancer of a planned stack: its limits are those of the app. */
import { type Balancer, networksOf } from "./balancer.ts";
import type { StackPlan } from "./stack-plan.ts";

const megabyte = 1024 * 1024;

/** Joins the topology's limits, what the app says of its paths, and the places. */
export function balancerOf(
  { topology, app, places }: StackPlan,
  { appPort, ports }: { readonly appPort: number; readonly ports: Readonly<Record<string, number>> },
): Balancer {
  const { bodyLimitBytes, requestTimeoutMs, host } = topology.web;
  return {
    listen: { host, port: appPort },
    servers: Array.from({ length: places }, (_, index) => {
      const name = `web-${index + 1}`;
      return { name, host: "127.0.0.1", port: ports[name] as number };
    }),
    trusted: networksOf(topology.web.trustProxy),
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
