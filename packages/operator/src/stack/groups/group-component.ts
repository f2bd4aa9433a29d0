/** One group of a stack's processes: the app, doing what the group does. */
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { webGroup, workersGroup } from "rungs/topology";
import { expectOk } from "../process/http-probe.ts";
import { publicAddress, type StackPlan } from "../stack-plan.ts";
import type { PlannedGroup } from "./planned-groups.ts";
import { type Place, type ProcessGroup, type ProcessGroupOptions, processGroup } from "./process-group.ts";
import { webSettingsVariable, writeWebSettings } from "./web-settings.ts";

/** Longer than the web server's own drain (15 s) with everything that stops after it. */
const stopTimeoutMs = 30_000;

/** The file beside this one: TypeScript in a checkout, JavaScript in the published package. */
const program = fileURLToPath(new URL(`./web-process${extname(fileURLToPath(import.meta.url))}`, import.meta.url));

/** Makes the group; `environment` is asked for when a process starts. */
export function groupComponent(
  options: {
    readonly plan: StackPlan;
    readonly group: PlannedGroup;
    readonly logs: string;
    readonly places: readonly Place[];
    /** Of each Varnish started here. */
    readonly purgePorts?: readonly number[];
    /** Inner addresses of the other regions, as they are reached from the group's. */
    readonly regionUrls?: Readonly<Record<string, string>>;
    /** Ports at which processes reach a group, by its name. */
    readonly internalPorts: Readonly<Record<string, number>>;
    readonly environment: () => Readonly<Record<string, string | undefined>>;
  } & Pick<ProcessGroupOptions, "needs" | "balancer" | "onFailure" | "onReplaced">,
): ProcessGroup {
  const { plan, group, logs, places, environment, needs, balancer, onFailure, onReplaced } = options;
  const { purgePorts, internalPorts, regionUrls: urls = {} } = options;
  const { app, folder } = plan.app;
  const { name, role, region, processes } = group;
  return processGroup({
    ...{ name, role, places, processes, needs },
    ...(region === undefined ? {} : { region }),
    plan: `${process.execPath} ${program} (${processes} of ${places.length} places, app ${app})`,
    startAgain: (number) => startAgain(group.group, number),
    ...(balancer === undefined ? {} : { balancer }),
    ...(onFailure === undefined ? {} : { onFailure }),
    ...(onReplaced === undefined ? {} : { onReplaced }),
    processIn(place) {
      const topology = plan.processTopology({
        ...{ group: group.group, port: place.port, internalPorts },
        ...(region === undefined ? {} : { region: { name: region, urls } }),
        ...(purgePorts === undefined ? {} : { purgePorts }),
      });
      return {
        name: place.name,
        role,
        command: process.execPath,
        // The name is there for people who look at a list of processes.
        args: [program, place.name],
        folder,
        environment: { ...environment(), [webSettingsVariable]: writeWebSettings({ app, name: place.name, topology }) },
        port: place.port,
        hasChannel: true,
        logFolder: logs,
        probe: (signal) => expectOk(`${publicAddress(topology.web.host, place.port)}/readyz`, signal),
        startTimeoutMs: 60_000,
        stopTimeoutMs,
      };
    },
  });
}

function startAgain(name: string, processes: number): string {
  if (name === webGroup) return `Start it again with: rungs up --processes ${processes}`;
  if (name === workersGroup) return `Start it again with: rungs up --workers ${processes}`;
  return `Set services.${name}.processes to ${processes} and start it again.`;
}
