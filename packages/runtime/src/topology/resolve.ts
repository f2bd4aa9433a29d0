/**
 * From what was written to what holds: flags over environment over file over the rung's preset over the defaults.
 * For each setting the winner's source is kept, so that it can be shown.
 */
import { ConfigError } from "../kernel/errors.ts";
import { putSetting, settingsOf } from "./paths.ts";
import { presetFor, type Rung } from "./presets.ts";
import { defaultTopology, type Topology, type TopologyInput, topologySchema } from "./schema.ts";
import { type Environment, env as secretFrom } from "./secret.ts";
import { explainIssues } from "./explain.ts";

/** Command-line settings, as text; see {@link flagSettings}. */
export type Flags = Readonly<Partial<Record<keyof typeof flagSettings, string>>>;

/** A complete topology and where each setting came from. */
export interface ResolvedTopology {
  readonly topology: Topology;
  /** By path: "default", "rung 2", "file rungs.config.ts", "env PORT" or "flag --port". */
  readonly sources: ReadonlyMap<string, string>;
}

export interface ResolveInput {
  /** What the config file exports, and its name. */
  readonly file?: { readonly name: string; readonly content: unknown };
  readonly environment?: Environment;
  readonly flags?: Flags;
}

type Parse = (text: string) => unknown;

const asNumber: Parse = (text) => (/^-?\d+$/.test(text.trim()) ? Number(text) : text);
const asText: Parse = (text) => text;
const asSwitch: Parse = (text) => ({ on: true, true: true, "1": true, off: false, false: false, "0": false })[text.toLowerCase()] ?? text;

/** Environment variables and the settings they stand for. DATABASE_URL and RUNGS_RUNG are treated apart. */
const environmentSettings: Readonly<Record<string, readonly [path: string, parse: Parse]>> = {
  PORT: ["web.port", asNumber],
  HOST: ["web.host", asText],
  RUNGS_DIR: ["dataDirectory", asText],
  RUNGS_SHARDS: ["database.shards", asNumber],
  RUNGS_CACHE: ["cache.isEnabled", asSwitch],
  RUNGS_LOG_LEVEL: ["log.level", asText],
};

/** Flags and the settings they stand for. `--rung` is treated apart. */
export const flagSettings = {
  port: ["web.port", asNumber],
  host: ["web.host", asText],
  dir: ["dataDirectory", asText],
  shards: ["database.shards", asNumber],
  cache: ["cache.isEnabled", asSwitch],
  "log-level": ["log.level", asText],
  rung: ["", asNumber],
} as const satisfies Readonly<Record<string, readonly [path: string, parse: Parse]>>;

/** Joins all sources. Raises one `CONFIG_INVALID` that names every bad setting with its path and source. */
export function resolveTopology(input: ResolveInput): ResolvedTopology {
  const { file, environment = {}, flags = {} } = input;
  const layers: { source: (path: string) => string; content: unknown }[] = [];
  const rung = flags.rung ?? environment["RUNGS_RUNG"];
  if (rung !== undefined) layers.push({ source: () => `rung ${rung}`, content: presetFor(asRung(rung, flags.rung === undefined ? "env RUNGS_RUNG" : "flag --rung")) });
  if (file !== undefined) layers.push({ source: () => `file ${file.name}`, content: file.content });
  layers.push(environmentLayer(environment));
  layers.push(flagLayer(flags));

  const problems: string[] = [];
  const merged = structuredClone(defaultTopology) as unknown as Record<string, unknown>;
  const sources = new Map<string, string>();
  for (const [path] of settingsOf(defaultTopology)) sources.set(path, "default");
  for (const layer of layers) {
    const parsed = topologySchema.safeParse(layer.content);
    if (!parsed.success) {
      problems.push(...explainIssues(parsed.error, layer.content, layer.source));
      continue;
    }
    for (const [path, value] of settingsOf(parsed.data)) {
      putSetting(merged, path, value);
      sources.set(path, layer.source(path));
    }
  }
  if (problems.length > 0) throw new ConfigError("CONFIG_INVALID", problems.join("\n"));
  return { topology: merged as unknown as Topology, sources };
}

function environmentLayer(environment: Environment) {
  const content: Record<string, unknown> = {};
  const sources = new Map<string, string>();
  for (const [variable, [path, parse]] of Object.entries(environmentSettings)) {
    const text = environment[variable];
    if (text === undefined || text === "") continue;
    putSetting(content, path, parse(text));
    sources.set(path, `env ${variable}`);
  }
  const url = environment["DATABASE_URL"];
  if (url !== undefined && url !== "") {
    // By reference, so that a password in it is never printed with the topology.
    putSetting(content, "database.shards", [{ leader: secretFrom("DATABASE_URL") }]);
    sources.set("database.shards", "env DATABASE_URL");
  }
  return { content, source: (path: string) => sources.get(path) ?? "env" };
}

function flagLayer(flags: Flags) {
  const content: Record<string, unknown> = {};
  const sources = new Map<string, string>();
  for (const [name, text] of Object.entries(flags)) {
    if (text === undefined || name === "rung") continue;
    const [path, parse] = flagSettings[name as keyof typeof flagSettings];
    putSetting(content, path, parse(text));
    sources.set(path, `flag --${name}`);
  }
  return { content, source: (path: string) => sources.get(path) ?? "flag" };
}

function asRung(text: string, source: string): Rung {
  const rung = Number(text);
  if (rung === 1 || rung === 2 || rung === 3 || rung === 4 || rung === 5) return rung;
  throw new ConfigError("CONFIG_INVALID", `rung: expected a number from 1 to 5, found "${text}" (from ${source}).`);
}

/** Settings of tiers that this version cannot run yet; to be refused at start, not ignored. */
export function unsupportedSettings(topology: Topology): string[] {
  const { web, sessions, cache, cdn, queue, regions, database } = topology;
  const found: string[] = [];
  if (web.processes > 1) found.push("web.processes");
  if (web.balancer !== undefined) found.push("web.balancer");
  if (sessions.url !== undefined) found.push("sessions.url");
  if (cache.url !== undefined) found.push("cache.url");
  if (cdn !== undefined) found.push("cdn");
  if (queue.url !== undefined) found.push("queue.url");
  if (regions !== undefined) found.push("regions");
  if (typeof database.shards !== "number" && database.shards.some((shard) => (shard.followers?.length ?? 0) > 0)) found.push("database.shards.followers");
  return found;
}

/** The topology as written by hand; exported for typing config files. */
export type { TopologyInput };
