/** What the launcher tells a web process, through one environment variable. */
import { Secret, type Topology } from "rungs/topology";

/** Name of that variable. */
export const webSettingsVariable = "RUNGS_WEB_PROCESS";

/** The settings of one web process. */
export interface WebSettings {
  /** File of the app's definition. */
  readonly app: string;
  readonly name: string;
  /** As a config file would hold it: secrets by the name of their variable. */
  readonly topology: unknown;
}

/** The variable's value. */
export function writeWebSettings(settings: Omit<WebSettings, "topology"> & { readonly topology: Topology }): string {
  return JSON.stringify({ ...settings, topology: withReferences(settings.topology) });
}

/** Secrets as `{ "env": NAME }`; none of the topology's may be a part of a list, which that form cannot say. */
function withReferences(value: unknown): unknown {
  if (value instanceof Secret) {
    if (value.part !== undefined) throw new Error(`${value} is a part of a list and has no variable of its own.`);
    return { env: value.variable };
  }
  if (Array.isArray(value)) return value.map(withReferences);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withReferences(item)]));
}
