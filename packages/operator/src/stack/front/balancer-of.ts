/** The balancer of a planned stack: its limits are those of the app. */

import { internalPortNames } from "../groups/planned-groups.ts";
import type { PlannedRegion } from "../regions/planned-regions.ts";
import type { StackPlan } from "../stack-plan.ts";
import { type BalancedServer, type Balancer, callPath, networksOf } from "./balancer.ts";
import type { Edge } from "./varnish-config.ts";

const megabyte = 1024 * 1024;
/**
 * Requests under way for each web process. One that answers 1,000 a second has answered all of these in a fifth of a second; what is
 * beyond would wait too long, and makes each of the others slower. The process itself refuses by what it measures, at the price of
 * its own time. With 256, 128 and 64 goodput at five times the capacity was 64 to 88 % of it, with these 84 to 100 % (`bench:overload`).
 */
const underWayPerProcess = { signedIn: 96, anonymous: 64, bot: 32 };

/** Joins the topology's limits, what the app says of its paths, and the region's places. */
export function balancerOf(
  { topology, app, groups: all, hasVarnish }: StackPlan,
  options: {
    readonly region: PlannedRegion;
    readonly appPort: number;
    readonly ports: Readonly<Record<string, number>>;
  },
): Balancer {
  const { region, appPort, ports } = options;
  const { bodyLimitBytes, requestTimeoutMs } = topology.web;
  const { host, prefix } = region;
  const groups = all.filter((group) => group.region === region.name);
  const [web, ...others] = groups.filter(({ isRouted }) => isRouted);
  const serversOf = (group: (typeof groups)[number] | undefined): BalancedServer[] =>
    Array.from({ length: group?.places ?? 0 }, (_, index) => {
      const name = `${group?.name}-${index + 1}`;
      return { name, host: "127.0.0.1", port: ports[name] as number };
    });
  // Requests of each group are counted apart: the bound is that of the largest.
  const processes = Math.max(...groups.filter(({ isRouted }) => isRouted).map((group) => group.processes));
  return {
    listen: hasVarnish ? { host: "127.0.0.1", port: ports[`${prefix}balancer`] as number } : { host, port: appPort },
    forwardedPort: region.name === undefined ? undefined : ports[forwardPortName(region.name)],
    servers: serversOf(web),
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
      hidden: hiddenOf(app),
    },
    split:
      others.length === 0
        ? undefined
        : {
            groups: others.map((group) => ({ name: group.group, servers: serversOf(group) })),
            internalPorts: Object.fromEntries(
              internalPortNames(groups).map(({ group, name }) => [group, ports[name] as number]),
            ),
            // They are told by the processes once these are ready.
            rules: [],
          },
  };
}

/** Name of the port at which a region takes what others forward. */
export const forwardPortName = (region: string) => `${region}-forward`;

const hiddenOf = (app: StackPlan["app"]) => ["/metrics", callPath, ...app.balancer.hidden];

/** The CDN's point of presence in front of it. */
export function edgeOf(
  { topology, app }: StackPlan,
  { originPort, secret }: { readonly originPort: number; readonly secret: string },
): Edge {
  return {
    origin: { host: "127.0.0.1", port: originPort },
    secret,
    trusted: networksOf(topology.web.trustProxy),
    files: ["/assets", ...app.cdn.files],
    hidden: hiddenOf(app),
    // Behind that of the balancer, whose answer says more.
    answerMs:
      Math.max(topology.web.requestTimeoutMs, ...app.balancer.uploads.map(({ timeoutMs }) => timeoutMs)) + 10_000,
  };
}
