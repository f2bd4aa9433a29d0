/** What a region has of its own: the way to the databases, the shared cache, the app's processes, and what stands in front of them. */
import { mkdir } from "node:fs/promises";
import type { Component } from "../component.ts";
import type { RegionDatabases } from "../databases/replicated-databases.ts";
import { forwardPortName } from "../front/balancer-of.ts";
import { frontComponents } from "../front/front.ts";
import type { BalancerComponent } from "../front/nginx.ts";
import { appGroups } from "../groups/app-groups.ts";
import type { ProcessGroups } from "../groups/process-groups.ts";
import { findProgram } from "../process/find-program.ts";
import { generatedSecret } from "../process/secrets.ts";
import { redisComponent } from "../redis/redis.ts";
import { publicAddress, type StackPlan } from "../stack-plan.ts";
import { cacheVariable } from "../variables.ts";
import { distanceName, farPortName } from "./distance-proxy.ts";
import type { PlannedRegion } from "./planned-regions.ts";

/** A region as it was put together; its components need some that all regions share. */
export interface RegionOfStack {
  readonly plan: PlannedRegion;
  /** Where its users reach the app. */
  readonly app: string;
  readonly components: readonly Component[];
  readonly groups: ProcessGroups;
}

/** Names of the ports of a region, but for those of its databases. */
export function regionPorts({ hasCache, hasVarnish }: StackPlan, { name, prefix }: PlannedRegion): string[] {
  return [
    ...(hasCache ? [`${prefix}cache`] : []),
    ...(hasVarnish ? [`${prefix}balancer`, `${prefix}purge`] : []),
    ...(name === undefined ? [] : [forwardPortName(name)]),
  ];
}

/** Makes its parts; makes their folder. */
export async function regionParts(
  plan: StackPlan,
  region: PlannedRegion,
  options: {
    readonly ports: Readonly<Record<string, number>>;
    readonly appPort: number;
    readonly logs: string;
    readonly secrets: string;
    /** Of the launcher. */
    readonly environment: Readonly<Record<string, string | undefined>>;
    /** For the region's processes, from what all regions share; asked for when a process starts. */
    readonly shared: () => Readonly<Record<string, string | undefined>>;
    /** Names of the parts that all regions share and that its processes need. */
    readonly needs: readonly string[];
    readonly databases: RegionDatabases | undefined;
    readonly purgeSecret: string;
    readonly onWebFailure: ((error: unknown) => void) | undefined;
  },
): Promise<RegionOfStack> {
  const { ports, appPort, logs, environment, databases, purgeSecret, onWebFailure } = options;
  await mkdir(region.folder, { recursive: true });
  const app = publicAddress(region.host, appPort);
  const cache = plan.hasCache ? await cacheOf(region, options) : undefined;
  const own: Component[] = [
    ...(databases === undefined ? [] : [databases.router]),
    ...(cache === undefined ? [] : [cache.component]),
  ];
  const inFront: { balancer?: BalancerComponent | undefined } = {};
  const groups = appGroups(plan, {
    ...{ region, ports, appPort, logs, inFront, onWebFailure },
    regionUrls: urlsFrom(plan, region, ports),
    needs: [...options.needs, ...own.map(({ name }) => name)],
    environment: () => ({
      ...options.shared(),
      ...databases?.environment,
      ...(cache === undefined ? {} : { [cacheVariable]: cache.url }),
    }),
  });
  const front = await frontComponents(plan, {
    ...{ region, ports, appPort, app, logs, groups, purgeSecret, environment },
  });
  inFront.balancer = front.balancer;
  return { plan: region, app, groups, components: [...own, ...groups.all, ...front.components] };
}

async function cacheOf(
  { name: region, prefix, folder }: PlannedRegion,
  options: {
    readonly ports: Readonly<Record<string, number>>;
    readonly logs: string;
    readonly secrets: string;
    readonly environment: Readonly<Record<string, string | undefined>>;
  },
): Promise<{ readonly component: Component; readonly url: string }> {
  const { ports, logs: logFolder, secrets, environment } = options;
  const name = `${prefix}cache`;
  const password = await generatedSecret(secrets, `${name}-password`);
  const port = ports[name] as number;
  const program = findProgram("redis-server", environment) as string;
  const component = redisComponent({
    ...{ name, role: "cache", region, program, folder, place: "cache", logFolder, port, password },
  });
  return { component, url: `redis://:${password}@127.0.0.1:${port}/0` };
}

/** Inner addresses of the other regions, as a region reaches them: over the distance, where there is one. */
function urlsFrom(
  { regions, roundTripMs }: StackPlan,
  from: PlannedRegion,
  ports: Readonly<Record<string, number>>,
): Record<string, string> {
  const others = regions.flatMap(({ name }) => (name === undefined || name === from.name ? [] : [name]));
  return Object.fromEntries(
    others.map((name) => {
      const port = forwardPortName(name);
      return [name, `http://127.0.0.1:${ports[roundTripMs === 0 ? port : farPortName(port)]}`];
    }),
  );
}

/** Names of the servers that are reached from other regions, beside the databases'. */
export function farFronts({ regions, roundTripMs }: StackPlan): string[] {
  return roundTripMs === 0 ? [] : regions.flatMap(({ name }) => (name === undefined ? [] : [forwardPortName(name)]));
}

/** Names of the ports of the distance before these servers; none where there is no distance. */
export function distancePorts(servers: readonly string[]): string[] {
  return servers.length === 0 ? [] : [distanceName, ...servers.map(farPortName)];
}
