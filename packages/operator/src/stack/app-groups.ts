/** The app's processes in a stack, by group: in which places they run, and who is told of their coming and going. */
import { groupComponent } from "./group-component.ts";
import type { BalancerComponent } from "./nginx.ts";
import { internalPortNames, isOnAppPort } from "./planned-groups.ts";
import { type ProcessGroups, processGroups } from "./process-groups.ts";
import type { StackPlan } from "./stack-plan.ts";

/** The groups of processes, each in its places. */
export function appGroups(
  plan: StackPlan,
  options: {
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
  const { ports, appPort, logs, needs, environment, inFront, onWebFailure } = options;
  const internalPorts = Object.fromEntries(
    internalPortNames(plan.groups).map(({ group, name }) => [group, ports[name] as number]),
  );
  const places = (name: string, count: number) =>
    Array.from({ length: count }, (_, index) => ({
      name: `${name}-${index + 1}`,
      port: ports[`${name}-${index + 1}`] as number,
    }));
  return processGroups(
    plan.groups.map((group) =>
      groupComponent({
        ...{ plan, group, logs, needs, internalPorts, environment },
        ...(plan.hasVarnish ? { purgePort: ports["purge"] as number } : {}),
        ...(onWebFailure === undefined ? {} : { onFailure: onWebFailure }),
        places: isOnAppPort(group)
          ? [{ name: "web-1", port: appPort, host: plan.topology.web.host }]
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
