/** Environment variables and flags, and the settings they stand for. */
import { nearestName } from "./nearest.ts";

/** Turns the text of a variable or flag into a setting's value; texts it cannot read stay texts, for the schema to refuse. */
export type ReadText = (text: string) => unknown;

/** One setting that can be given outside of the file. */
export interface OuterSetting {
  readonly path: string;
  readonly variable?: string;
  readonly flag?: string;
  readonly read: ReadText;
}

const asInteger: ReadText = (text) => (/^-?\d{1,15}$/.test(text.trim()) ? Number(text) : text);
const asText: ReadText = (text) => text;
const switches: Readonly<Record<string, boolean>> = {
  on: true,
  true: true,
  "1": true,
  off: false,
  false: false,
  "0": false,
};
const asSwitch: ReadText = (text) => switches[text.trim().toLowerCase()] ?? text;

/** DATABASE_URL and the rung are read apart: the one is a list of secrets, the other chooses a preset. */
export const outerSettings: readonly OuterSetting[] = [
  { path: "web.port", variable: "PORT", flag: "port", read: asInteger },
  { path: "web.host", variable: "HOST", flag: "host", read: asText },
  { path: "dataDirectory", variable: "RUNGS_DIR", flag: "dir", read: asText },
  { path: "database.shards", variable: "RUNGS_SHARDS", flag: "shards", read: asInteger },
  { path: "database.strategy", variable: "RUNGS_STRATEGY", flag: "strategy", read: asText },
  { path: "cache.isEnabled", variable: "RUNGS_CACHE", flag: "cache", read: asSwitch },
  { path: "services.workers.processes", variable: "RUNGS_WORKERS", flag: "workers", read: asInteger },
  { path: "group", variable: "RUNGS_GROUP", flag: "group", read: asText },
  { path: "region", variable: "RUNGS_REGION", flag: "region", read: asText },
  { path: "log.level", variable: "RUNGS_LOG_LEVEL", flag: "log-level", read: asText },
];

/** The one flag that may be given several times; each is a split point, whatever characters it has. */
export const splitInput = { path: "database.splits", flag: "split" } as const;

/** Variable and flag that choose a preset. */
export const rungInput = { variable: "RUNGS_RUNG", flag: "rung" } as const;

/** Names of the flags that give a setting or a preset; each takes a value. */
export type FlagName =
  | "port"
  | "host"
  | "dir"
  | "shards"
  | "strategy"
  | "cache"
  | "workers"
  | "group"
  | "region"
  | "log-level"
  | "rung";

/** Values of flags as typed; `split` holds all of its. */
export type Flags = Readonly<Partial<Record<FlagName, string | undefined>>> & {
  readonly split?: readonly string[] | undefined;
};

/** All names of {@link FlagName}. */
export const flagNames: readonly FlagName[] = [
  "port",
  "host",
  "dir",
  "shards",
  "strategy",
  "cache",
  "workers",
  "group",
  "region",
  "log-level",
  "rung",
];

const variables = [...outerSettings.flatMap(({ variable }) => variable ?? []), rungInput.variable, "DATABASE_URL"];

/** Warnings about variables that look like ours but are not, e.g. RUNGS_SHARD: they would be ignored silently. */
export function mistypedVariables(environment: Readonly<Record<string, string | undefined>>): string[] {
  return Object.keys(environment)
    .filter((name) => name.startsWith("RUNGS_") && !variables.includes(name))
    .flatMap((name) => {
      const meant = nearestName(name.slice("RUNGS_".length), ours());
      return meant === undefined
        ? []
        : [`The environment variable ${name} has no effect; did you mean RUNGS_${meant}?`];
    });
}

function ours(): string[] {
  return variables.filter((name) => name.startsWith("RUNGS_")).map((name) => name.slice("RUNGS_".length));
}
