/** Reads the command line into flags. */
import { parseArgs } from "node:util";
import { ConfigError } from "../kernel/errors.ts";
import { joinProblems } from "./explain.ts";
import { type FlagName, type Flags, flagNames, splitInput } from "./inputs.ts";
import { nearestName } from "./nearest.ts";

/** What the command line says. */
export interface CommandLine {
  /** Values as typed; `resolveTopology` checks them. */
  readonly flags: Flags;
  /** The config file, from `--config`. */
  readonly config?: string;
  readonly showConfig: boolean;
  readonly help: boolean;
}

const valued: readonly string[] = [...flagNames, splitInput.flag, "config"];
const switches: readonly string[] = ["show-config", "help"];
const known = [...valued, ...switches];

/**
 * Parses `--port 4000`, `--port=4000`, `--no-cache`, `--show-config`, `--help` and `-h`; of a repeated flag the last
 * counts, but of `--split` each. Raises one `CONFIG_INVALID` with every unknown flag (and the nearest known one), missing value and stray word.
 */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const { tokens } = parseArgs({
    args: [...args],
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: {
      ...Object.fromEntries(valued.map((name) => [name, { type: "string" as const }])),
      "show-config": { type: "boolean" },
      help: { type: "boolean", short: "h" },
    },
  });
  const problems: string[] = [];
  const found = new Map<string, string>();
  const split: string[] = [];
  let unknownAt = -2;
  for (const token of tokens) {
    // The word after an unknown flag is most likely its value: one mistake, told once.
    if (token.kind === "positional" && token.index !== unknownAt + 1) problems.push(strayWord(token.value));
    if (token.kind !== "option") continue;
    const { name, rawName, value, inlineValue } = token;
    if (rawName === "--no-cache" && value === undefined) found.set("cache", "off");
    else if (!known.includes(name)) {
      problems.push(unknownFlag(rawName));
      unknownAt = token.index;
    } else if (switches.includes(name)) {
      if (value === undefined) found.set(name, "on");
      else problems.push(`--${name} takes no value.`);
    } else if (value === undefined || value === "" || (inlineValue === false && /^--?[a-z]/.test(value))) {
      problems.push(`--${name} needs a value: --${name} ${example(name)}.`);
    } else if (name === splitInput.flag) split.push(value);
    else found.set(name, value);
  }
  if (problems.length > 0) throw new ConfigError("CONFIG_INVALID", joinProblems(problems));
  const flags = Object.fromEntries(flagNames.flatMap((name): [FlagName, string][] => pairs(name, found.get(name))));
  const config = found.get("config");
  return {
    flags: split.length === 0 ? flags : { ...flags, split },
    ...(config === undefined ? {} : { config }),
    showConfig: found.has("show-config"),
    help: found.has("help"),
  };
}

function pairs(name: FlagName, value: string | undefined): [FlagName, string][] {
  return value === undefined ? [] : [[name, value]];
}

/** A flag's value is never repeated, and neither is a stray word: both may be a secret in the wrong place. */
function unknownFlag(rawName: string): string {
  const shown = /^--?[A-Za-z][\w-]{0,40}$/.test(rawName) ? rawName : "a flag that is no word";
  const meant = nearestName(rawName.replace(/^-+/, ""), known);
  return meant === undefined
    ? `Unknown flag ${shown}. Known: ${known.map((name) => `--${name}`).join(", ")}.`
    : `Unknown flag ${shown}; did you mean --${meant}?`;
}

function strayWord(word: string): string {
  const meant = nearestName(word, known);
  const shown = meant === undefined ? "A word that belongs to no flag" : `"${word}" belongs to no flag`;
  return `${shown}. Flags start with "--"${meant === undefined ? "." : `; did you mean --${meant}?`}`;
}

function example(name: string): string {
  const examples: Readonly<Record<string, string>> = {
    port: "3000",
    host: "127.0.0.1",
    dir: ".rungs",
    shards: "2",
    strategy: "range",
    split: "n",
    cache: "off",
    workers: "2",
    group: "workers",
    region: "eu",
    "log-level": "info",
    rung: "1",
    config: "rungs.config.ts",
  };
  return examples[name] ?? "VALUE";
}
