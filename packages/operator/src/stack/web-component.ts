/** The web tier of a stack: the app's processes. */
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import { expectOk } from "./http-probe.ts";
import { publicAddress, type StackPlan } from "./stack-plan.ts";
import { webSettingsVariable, writeWebSettings } from "./web-settings.ts";
import { type Place, type WebTier, type WebTierOptions, webTier } from "./web-tier.ts";

/** Longer than the web server's own drain (15 s) with everything that stops after it. */
const stopTimeoutMs = 30_000;

/** The file beside this one: TypeScript in a checkout, JavaScript in the published package. */
const program = fileURLToPath(new URL(`./web-process${extname(fileURLToPath(import.meta.url))}`, import.meta.url));

/** Makes the tier; `environment` is asked for when a process starts. */
export function webComponent(
  options: {
    readonly plan: StackPlan;
    readonly logs: string;
    readonly places: readonly Place[];
    /** Of the Varnish started here. */
    readonly purgePort?: number;
    readonly environment: () => Readonly<Record<string, string | undefined>>;
  } & Pick<WebTierOptions, "needs" | "balancer" | "onFailure">,
): WebTier {
  const { plan, logs, places, environment, needs, balancer, onFailure, purgePort } = options;
  const { app, folder } = plan.app;
  return webTier({
    places,
    processes: plan.processes,
    needs,
    plan: `${process.execPath} ${program} (${plan.processes} of ${places.length} places, app ${app})`,
    ...(balancer === undefined ? {} : { balancer }),
    ...(onFailure === undefined ? {} : { onFailure }),
    processIn({ name, port }) {
      const topology = plan.webTopology(port, purgePort);
      return {
        name,
        role: "web",
        command: process.execPath,
        // The name is there for people who look at a list of processes.
        args: [program, name],
        folder,
        environment: { ...environment(), [webSettingsVariable]: writeWebSettings({ app, name, topology }) },
        port,
        hasChannel: true,
        logFolder: logs,
        probe: (signal) => expectOk(`${publicAddress(topology.web.host, port)}/readyz`, signal),
        startTimeoutMs: 60_000,
        stopTimeoutMs,
      };
    },
  });
}
