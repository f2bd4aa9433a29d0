/** What stands in front of a region's processes: the balancer, and the CDN in front of that. */

import type { Component } from "../component.ts";
import type { ProcessGroups } from "../groups/process-groups.ts";
import { toldRules } from "../groups/told-routes.ts";
import { findProgram } from "../process/find-program.ts";
import { expectOk } from "../process/http-probe.ts";
import type { PlannedRegion } from "../regions/planned-regions.ts";
import type { StackPlan } from "../stack-plan.ts";
import { balancerOf, edgeOf } from "./balancer-of.ts";
import { haproxyComponent } from "./haproxy.ts";
import { type BalancerComponent, nginxComponent } from "./nginx.ts";
import { varnishComponent } from "./varnish.ts";

/** Makes them; neither without a balancer. */
export async function frontComponents(
  plan: StackPlan,
  options: {
    readonly region: PlannedRegion;
    readonly ports: Readonly<Record<string, number>>;
    readonly appPort: number;
    /** The address that people open. */
    readonly app: string;
    readonly logs: string;
    /** Those of the region. */
    readonly groups: ProcessGroups;
    /** Of the Varnish started here. */
    readonly purgeSecret: string;
    readonly environment: Readonly<Record<string, string | undefined>>;
  },
): Promise<{ readonly balancer: BalancerComponent | undefined; readonly components: readonly Component[] }> {
  const { region, ports, appPort, app, logs: logFolder, groups, purgeSecret, environment } = options;
  const { hasVarnish } = plan;
  const { folder, prefix } = region;
  if (plan.balancer === undefined) return { balancer: undefined, components: [] };
  const make = plan.balancer === "nginx" ? nginxComponent : haproxyComponent;
  const routed = plan.groups.filter((group) => group.region === region.name && group.isRouted);
  const originPort = ports[`${prefix}balancer`] as number;
  const balancer = make({
    name: `${prefix}balancer`,
    region: region.name,
    // One a core; of several regions all share the cores.
    workers: region.name === undefined ? 2 : 1,
    balancer: balancerOf(plan, { region, appPort, ports }),
    program: findProgram(plan.balancer, environment) as string,
    ...{ folder, logFolder, environment, needs: routed.map(({ name }) => name) },
    probe: (signal) => expectOk(`${hasVarnish ? `http://127.0.0.1:${originPort}` : app}/readyz`, signal),
    isInUse: (port) => groups.isInUse(port),
    rules: () =>
      toldRules(
        routed.flatMap(({ name, group }) => {
          const processes = groups.all.find((each) => each.name === name);
          return processes === undefined ? [] : [{ group, processes }];
        }),
      ),
  });
  if (!hasVarnish) return { balancer, components: [balancer] };
  const edge = await varnishComponent({
    name: `${prefix}varnish`,
    region: region.name,
    edge: edgeOf(plan, { originPort, secret: purgeSecret }),
    program: findProgram("varnishd", environment) as string,
    ...{ folder, logFolder, environment, needs: [balancer.name] },
    listen: { host: region.host, port: appPort },
    purgePort: ports[`${prefix}purge`] as number,
    probe: (signal) => expectOk(`${app}/readyz`, signal),
  });
  return { balancer, components: [balancer, edge] };
}
