/** The app's processes in a region, by group: in which places they run, and who is told of their coming and going. */

import type { BalancerComponent } from "../front/nginx.ts";
import type { PlannedRegion } from "../regions/planned-regions.ts";
import type { StackPlan } from "../stack-plan.ts";
import { groupComponent } from "./group-component.ts";
import { internalPortNames, isOnAppPort } from "./planned-groups.ts";
import { type ProcessGroups, processGroups } from "./process-groups.ts";

/** The region's groups of processes, each in its places. */
export function appGroups(
  plan: StackPlan,
  options: {
    readonly region: PlannedRegion;
    /** Inner addresses of the other regions, as they are reached from this one. */
    readonly regionUrls: Readonly<Record<string, string>>;
    readonly ports: Readonly<Record<string, number>>;
    readonly appPort: number;
    readonly logs: string;
    readonly needs: readonly string[];
    readonly environment: () => Readonly<Record<string, string | undefined>>;
    /** The balancer, once it is made: it needs the groups first. */
    readonly inFront: { readonly balancer?: BalancerComponent | undefined };
    readonly onWebFailure: ((error: unknown) => void) | undefined;
  },
): ProcessGroups {
  const { region, regionUrls, ports, appPort, logs, needs, environment, inFront, onWebFailure } = options;
  const groups = plan.groups.filter((group) => group.region === region.name);
  const internalPorts = Object.fromEntries(
    internalPortNames(groups).map(({ group, name }) => [group, ports[name] as number]),
  );
  const places = (name: string, count: number) =>
    Array.from({ length: count }, (_, index) => ({
      name: `${name}-${index + 1}`,
      port: ports[`${name}-${index + 1}`] as number,
    }));
  return processGroups(
    groups.map((group) =>
      groupComponent({
        ...{ plan, group, logs, needs, internalPorts, regionUrls, environment },
        ...(plan.hasVarnish ? { purgePorts: plan.regions.map(({ prefix }) => ports[`${prefix}purge`] as number) } : {}),
        ...(onWebFailure === undefined ? {} : { onFailure: onWebFailure }),
        places: isOnAppPort(group)
          ? [{ name: "web-1", port: appPort, host: region.host }]
          : places(group.name, group.places),
        ...(group.isRouted
          ? {
              balancer: {
                settled: async (place: string) => inFront.balancer?.settled(place),
                leaving: async (place: string) => inFront.balancer?.leaving(place),
              },
              onReplaced: async () => inFront.balancer?.reroute(),
            }
          : {}),
      }),
    ),
  );
}
