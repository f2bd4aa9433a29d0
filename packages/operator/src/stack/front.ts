/** What stands in front of a stack's processes: the balancer, and the CDN in front of that. */
import { balancerOf, edgeOf } from "./balancer-of.ts";
import type { Component } from "./component.ts";
import { findProgram } from "./find-program.ts";
import { haproxyComponent } from "./haproxy.ts";
import { expectOk } from "./http-probe.ts";
import { type BalancerComponent, nginxComponent } from "./nginx.ts";
import type { ProcessGroups } from "./process-groups.ts";
import type { StackPlan } from "./stack-plan.ts";
import { toldRules } from "./told-routes.ts";
import { varnishComponent } from "./varnish.ts";

/** Makes them; neither without a balancer. */
export async function frontComponents(
  plan: StackPlan,
  options: {
    readonly ports: Readonly<Record<string, number>>;
    readonly appPort: number;
    /** The address that people open. */
    readonly app: string;
    readonly logs: string;
    readonly groups: ProcessGroups;
    /** Of the Varnish started here. */
    readonly purgeSecret: string;
    readonly environment: Readonly<Record<string, string | undefined>>;
  },
): Promise<{ readonly balancer: BalancerComponent | undefined; readonly components: readonly Component[] }> {
  const { ports, appPort, app, logs: logFolder, groups, purgeSecret, environment } = options;
  const { folder, topology, hasVarnish } = plan;
  if (plan.balancer === undefined) return { balancer: undefined, components: [] };
  const make = plan.balancer === "nginx" ? nginxComponent : haproxyComponent;
  const routed = plan.groups.filter(({ isRouted }) => isRouted).map(({ name }) => name);
  const balancer = make({
    balancer: balancerOf(plan, { appPort, ports }),
    program: findProgram(plan.balancer, environment) as string,
    ...{ folder, logFolder, environment, needs: routed },
    probe: (signal) => expectOk(`${hasVarnish ? `http://127.0.0.1:${ports["balancer"]}` : app}/readyz`, signal),
    isInUse: (port) => groups.isInUse(port),
    rules: () => toldRules(groups.all.filter(({ name }) => routed.includes(name))),
  });
  if (!hasVarnish) return { balancer, components: [balancer] };
  const edge = await varnishComponent({
    edge: edgeOf(plan, { ports, secret: purgeSecret }),
    program: findProgram("varnishd", environment) as string,
    ...{ folder, logFolder, environment, needs: [balancer.name] },
    listen: { host: topology.web.host, port: appPort },
    purgePort: ports["purge"] as number,
    probe: (signal) => expectOk(`${app}/readyz`, signal),
  });
  return { balancer, components: [balancer, edge] };
}
