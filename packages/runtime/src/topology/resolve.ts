/**
 * From what was written to what holds: flags over environment over file over the rung's preset over the defaults.
 *
 * Each source is checked by itself, so that a mistake is told with its source even where another one wins. Lists are
 * replaced as a whole, groups are merged. For each setting the winner's source is kept, so that it can be shown.
 */
import { ConfigError } from "../kernel/errors.ts";
import { addressProblem } from "./address.ts";
import { crossProblems } from "./cross-check.ts";
import { explainIssues, joinProblems, showText } from "./explain.ts";
import { webGroup } from "./groups.ts";
import { type FlagName, type Flags, mistypedVariables, outerSettings, rungInput, splitInput } from "./inputs.ts";
import { leavesOf, putSetting, settingsOf } from "./paths.ts";
import { presetShards, type Rung, rungPresets } from "./presets.ts";
import { topologySchema } from "./schema.ts";
import { type Environment, Secret, splitAddresses } from "./secret.ts";
import { deepFreeze, defaultTopology, type Topology, type TopologyInput } from "./topology.ts";

/** A complete topology and where each setting came from. */
export interface ResolvedTopology {
  /** Frozen; holds references to secrets, never their values. */
  readonly topology: Topology;
  /** By path: "default", "preset rung 2", "file rungs.config.ts", "env PORT" or "flag --port". */
  readonly sources: ReadonlyMap<string, string>;
  /** Things that look like mistakes and have no effect; to be logged. */
  readonly warnings: readonly string[];
}

/** The sources of {@link resolveTopology}; absent ones count as empty. */
export interface ResolveInput {
  /** What the config file exports, and its name. */
  readonly file?: { readonly name: string; readonly content: unknown };
  /** Empty variables count as unset. */
  readonly environment?: Environment;
  readonly flags?: Flags;
  /** The app's own defaults, over those of Rungs. */
  readonly defaults?: TopologyInput;
}

interface Layer {
  readonly content: unknown;
  readonly source: (path: string) => string;
  /** What was found wrong while the layer was made. */
  readonly problems: readonly string[];
}

/** Joins all sources. Raises one `CONFIG_INVALID` that names every bad setting with its path and source. */
export function resolveTopology(input: ResolveInput): ResolvedTopology {
  const { file, environment = {}, flags = {}, defaults = {} } = input;
  const preset = presetLayer(environment, flags);
  const layers: Layer[] = [
    { content: defaultTopology, source: () => "default", problems: [] },
    { content: defaults, source: () => "default", problems: [] },
    preset,
    ...(file === undefined ? [] : [{ content: file.content, source: () => `file ${file.name}`, problems: [] }]),
    environmentLayer(environment),
    flagLayer(flags),
  ];
  const problems: string[] = [];
  const merged: Record<string, unknown> = {};
  const origins = new Map<string, string>();
  for (const { content, source, problems: found } of layers) {
    problems.push(...found);
    const parsed = topologySchema.safeParse(content);
    if (!parsed.success) {
      problems.push(...explainIssues(parsed.error, content, source));
      continue;
    }
    for (const group of ["sessions", "storage", "queue"]) merged[group] ??= {};
    fillGroups(merged, Object.keys(parsed.data.services ?? {}), { origins, source });
    for (const [path, value] of settingsOf(parsed.data satisfies TopologyInput)) {
      putSetting(merged, path, value);
      origins.set(path, source(path));
    }
  }
  if (problems.length === 0 && preset.rung !== undefined && preset.rung >= 4) {
    fillServers(merged, { isChosen: origins.get("database.shards") !== preset.source("database.shards") });
  }
  const topology = merged as object as Topology;
  const originOf = (path: string) => originAt(origins, path);
  // Settings are compared with each other only when each is right by itself: else one mistake would be told twice.
  if (problems.length === 0) problems.push(...crossProblems(topology, originOf));
  if (problems.length > 0) throw new ConfigError("CONFIG_INVALID", joinProblems(problems));
  const sources = new Map(leavesOf(topology).map(([path]) => [path, originOf(path)]));
  return { topology: deepFreeze(topology), sources, warnings: mistypedVariables(environment) };
}

/** The source of a setting; parts of a list have that of the list, missing ones that of their group's first setting. */
function originAt(origins: ReadonlyMap<string, string>, path: string): string {
  for (let at = path; at !== ""; at = at.replace(/(?:^|\.)[^.[]+$|\[\d+\]$/, "")) {
    const origin = origins.get(at) ?? [...origins].find(([setting]) => setting.startsWith(`${at}.`))?.[1];
    if (origin !== undefined) return origin;
  }
  return "default";
}

/** From rung 4 on a number of shards is that many of the preset's servers; where nobody chose one, split points say it. */
function fillServers(merged: Record<string, unknown>, { isChosen }: { readonly isChosen: boolean }): void {
  const { shards, strategy, splits } = merged["database"] as Topology["database"];
  const count = isChosen ? shards : strategy === "range" ? splits.length + 1 : undefined;
  if (typeof count === "number") putSetting(merged, "database.shards", presetShards(count));
}

/** A group may be nothing but a name: that it has one process is said first, so that it is not lost when settings are joined. */
function fillGroups(
  merged: Record<string, unknown>,
  names: readonly string[],
  { origins, source }: { readonly origins: Map<string, string>; readonly source: (path: string) => string },
): void {
  for (const name of names) {
    const path = `services.${name}.processes`;
    if (name === webGroup || origins.has(path)) continue;
    putSetting(merged, path, 1);
    origins.set(path, source(`services.${name}`));
  }
}

function presetLayer(environment: Environment, flags: Flags): Layer & { readonly rung: Rung | undefined } {
  const { variable, flag } = rungInput;
  const problems: string[] = [];
  let chosen: Rung | undefined;
  for (const [text, source] of [
    [environment[variable], `env ${variable}`],
    [flags[flag], `flag --${flag}`],
  ] as const) {
    if (text === undefined || (text === "" && source.startsWith("env"))) continue;
    const rung = ([1, 2, 3, 4, 5] as const).find((number) => String(number) === text.trim());
    if (rung === undefined)
      problems.push(`rung: expected an integer from 1 to 5, got ${showText(text)} (from ${source}).`);
    chosen = rung;
  }
  const content = chosen === undefined ? {} : rungPresets[chosen];
  return { content, source: () => `preset rung ${chosen}`, problems, rung: chosen };
}

function environmentLayer(environment: Environment): Layer {
  const content: Record<string, unknown> = {};
  const sources = new Map<string, string>();
  for (const { path, variable, read } of outerSettings) {
    const text = variable === undefined ? "" : (environment[variable] ?? "");
    if (text === "") continue;
    putSetting(content, path, read(text));
    sources.set(path, `env ${variable}`);
  }
  const source = (path: string) => originAt(sources, path);
  const text = environment["DATABASE_URL"]?.trim() ?? "";
  if (text === "") return { content, source, problems: [] };
  const addresses = splitAddresses(text);
  const problems = addresses.flatMap((address, index) => {
    const problem = addressProblem(address, "database", true);
    const found = problem?.startsWith("expected") ? ", got another text" : "";
    return problem === undefined
      ? []
      : [`database.shards[${index}].leader: ${problem}${found} (from env DATABASE_URL).`];
  });
  const number = (content["database"] as { shards?: unknown } | undefined)?.shards;
  if (typeof number === "number" && number !== addresses.length) {
    problems.push(
      `database.shards: DATABASE_URL lists ${addresses.length} server(s), RUNGS_SHARDS says ${number}; unset one of them (from env RUNGS_SHARDS).`,
    );
  }
  // By reference, so that a password in it is never printed with the topology.
  const leaders = addresses.map((_, index) => new Secret("DATABASE_URL", { index, count: addresses.length }));
  putSetting(
    content,
    "database.shards",
    leaders.map((leader) => ({ leader })),
  );
  sources.set("database.shards", "env DATABASE_URL");
  return { content, source, problems };
}

function flagLayer(flags: Flags): Layer {
  const content: Record<string, unknown> = {};
  const sources = new Map<string, string>();
  for (const { path, flag, read } of outerSettings) {
    const text = flag === undefined ? undefined : flags[flag as FlagName];
    if (text === undefined) continue;
    putSetting(content, path, read(text));
    sources.set(path, `flag --${flag}`);
  }
  if (flags.split !== undefined) {
    putSetting(content, splitInput.path, flags.split);
    sources.set(splitInput.path, `flag --${splitInput.flag}`);
  }
  return { content, source: (path) => originAt(sources, path), problems: [] };
}
