/** Reading the outside world for {@link resolveTopology}: the config file and the command line. */
import { access, readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { ConfigError } from "../kernel/errors.ts";
import { editDistance } from "./explain.ts";
import { settingsOf } from "./paths.ts";
import { type Flags, flagSettings, type ResolvedTopology } from "./resolve.ts";

const fileNames = ["rungs.config.ts", "rungs.config.mjs", "rungs.config.js", "rungs.config.json"];

/** Loads the config file: the named one, or the first that exists in `folder`; undefined when there is none. */
export async function loadConfigFile(folder: string, name?: string): Promise<{ name: string; content: unknown } | undefined> {
  for (const candidate of name === undefined ? fileNames : [name]) {
    const path = resolve(folder, candidate);
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (!isThere && name === undefined) continue;
    try {
      if (path.endsWith(".json")) return { name: candidate, content: JSON.parse(await readFile(path, "utf8")) };
      const module = (await import(pathToFileURL(path).href)) as { readonly default?: unknown };
      return { name: candidate, content: module.default };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new ConfigError("CONFIG_FILE_UNREADABLE", `The config file ${candidate} could not be read: ${reason}`, { cause: error });
    }
  }
  return undefined;
}

/** What the command line says. */
export interface CommandLine {
  readonly flags: Flags;
  /** Name of the config file, from `--config`. */
  readonly config?: string;
  readonly showConfig: boolean;
  readonly help: boolean;
}

/** Parses flags such as `--port 4000`. Raises `CONFIG_INVALID` for an unknown one, naming the nearest. */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const names = Object.keys(flagSettings);
  const options = Object.fromEntries([...names, "config"].map((name) => [name, { type: "string" as const }]));
  try {
    const { values } = parseArgs({ args: [...args], options: { ...options, "show-config": { type: "boolean" }, help: { type: "boolean", short: "h" } } });
    const given = values as Record<string, string | boolean | undefined>;
    const flags = Object.fromEntries(names.flatMap((name) => (given[name] === undefined ? [] : [[name, given[name]]])));
    const config = given["config"];
    return { flags: flags as Flags, ...(typeof config === "string" ? { config } : {}), showConfig: given["show-config"] === true, help: given["help"] === true };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const unknown = /'--?([^' ]+)/.exec(reason)?.[1] ?? "";
    const near = [...names, "config", "show-config", "help"].filter((name) => editDistance(name, unknown) <= 2);
    const hint = near.length > 0 && !names.includes(unknown) ? ` Did you mean --${near[0]}?` : "";
    throw new ConfigError("CONFIG_INVALID", `${reason.split(". ")[0]}.${hint} Flags: ${names.map((name) => `--${name}`).join(", ")}, --config, --show-config.`);
  }
}

/** One line a setting: path, value and where it came from. Secrets show as references. */
export function describeTopology({ topology, sources }: ResolvedTopology): string[] {
  const rows = settingsOf(topology).map(([path, value]) => [path, typeof value === "object" ? JSON.stringify(value) : String(value), sources.get(path) ?? "default"] as const);
  const width = Math.max(...rows.map(([path]) => path.length));
  const valueWidth = Math.min(40, Math.max(...rows.map(([, value]) => value.length)));
  return rows.map(([path, value, source]) => `${path.padEnd(width)}  ${value.padEnd(valueWidth)}  ${source}`);
}
