/** From words typed to a command and its values; every mistake is told, and none is passed over. */
import { parseArgs } from "node:util";
import type { ArgsDef } from "citty";
import { nearestName } from "rungs/topology";
import type { Command, Values } from "./command.ts";
import { UsageError } from "./exit-code.ts";

/** A command found, and the words that follow its name. */
export interface FoundCommand {
  readonly command: Command;
  /** The whole name, e.g. "rungs jobs list". */
  readonly name: string;
  readonly rest: readonly string[];
}

/** Follows the leading words down to a command. Raises {@link UsageError} on a word that names none. */
export async function findCommand(root: Command, args: readonly string[]): Promise<FoundCommand> {
  let found: FoundCommand = { command: root, name: "rungs", rest: args };
  for (;;) {
    const { command, name, rest } = found;
    const [word, ...after] = rest;
    if (word === undefined || word.startsWith("-") || command.commands === undefined) return found;
    const open = Object.hasOwn(command.commands, word) ? command.commands[word] : undefined;
    if (open === undefined) throw unknownCommand(name, word, Object.keys(command.commands));
    found = { command: await open(), name: `${name} ${word}`, rest: after };
  }
}

/** Whether the words ask for help; what else they hold does not matter then. */
export function wantsHelp(words: readonly string[]): boolean {
  const end = words.indexOf("--");
  return (end === -1 ? words : words.slice(0, end)).some((word) => word === "--help" || word === "-h");
}

/** Reads flags and words by the command's definition. Raises one {@link UsageError} with all mistakes. */
export function readValues({ command, name, rest }: FoundCommand): Values {
  const args = (command.definition.args ?? {}) as ArgsDef;
  const flags = Object.entries(args).filter(([, { type }]) => type !== "positional");
  const { tokens } = parseArgs({
    args: [...rest],
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: Object.fromEntries(
      flags.map(([flag, { type }]) => [flag, { type: type === "boolean" ? "boolean" : "string" } as const]),
    ),
  });
  const problems: string[] = [];
  const found = new Map<string, string[]>();
  const words: string[] = [];
  let unknownAt = -2;
  for (const token of tokens) {
    // The word after an unknown flag is most likely its value: one mistake, told once.
    if (token.kind === "positional" && token.index !== unknownAt + 1) words.push(token.value);
    if (token.kind !== "option") continue;
    const problem = flagProblem(token, args);
    if (problem === undefined) found.set(token.name, [...(found.get(token.name) ?? []), token.value ?? "true"]);
    else problems.push(problem);
    if (args[token.name] === undefined) unknownAt = token.index;
  }
  const { wordsMax = 0 } = command;
  if (words.length > wordsMax) {
    problems.push(
      wordsMax === 0 ? `"${words[0]}" belongs to no flag.` : `At most ${wordsMax} may be named, found ${words.length}.`,
    );
  }
  if (problems.length > 0) throw new UsageError(`${problems.join("\n")}\nTry: ${name} --help`);
  return {
    text: (flag) => found.get(flag)?.at(-1),
    texts: (flag) => found.get(flag) ?? [],
    isSet: (flag) => found.has(flag),
    words,
  };
}

interface OptionToken {
  readonly name: string;
  readonly rawName: string;
  readonly value?: string | undefined;
  readonly inlineValue?: boolean | undefined;
}

function flagProblem({ name, rawName, value, inlineValue }: OptionToken, args: ArgsDef): string | undefined {
  const definition = Object.hasOwn(args, name) ? args[name] : undefined;
  if (definition === undefined || !rawName.startsWith("--")) {
    const meant = nearestName(name, Object.keys(args));
    // A mistyped flag may hold a secret; only what looks like a flag is repeated.
    const shown = /^--?[A-Za-z][\w-]{0,40}$/.test(rawName) ? rawName : "a flag that is no word";
    return `Unknown flag ${shown}${meant === undefined ? "." : `; did you mean --${meant}?`}`;
  }
  if (definition.type === "boolean") return value === undefined ? undefined : `--${name} takes no value.`;
  if (value === undefined || value === "" || (inlineValue === false && /^--?[a-z]/.test(value)))
    return `--${name} needs a value.`;
  const { options } = definition as { options?: string[] };
  if (options === undefined || options.includes(value)) return undefined;
  const meant = nearestName(value, options);
  return `--${name}: expected one of ${options.join(", ")}, found "${value}"${meant === undefined ? "." : `; did you mean ${meant}?`}`;
}

function unknownCommand(name: string, word: string, known: readonly string[]): UsageError {
  const meant = nearestName(word, known);
  return new UsageError(
    `"${word}" is no command of ${name}${meant === undefined ? `; known: ${known.join(", ")}` : `; did you mean ${name} ${meant}?`}\nTry: ${name} --help`,
  );
}

/** A whole number from a flag. Raises {@link UsageError} outside of the bounds. */
export function wholeNumber(
  values: Values,
  flag: { readonly name: string; readonly min: number; readonly max: number; readonly fallback: number },
): number {
  const { name, min, max, fallback } = flag;
  const text = values.text(name);
  if (text === undefined) return fallback;
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new UsageError(`--${name}: expected a whole number from ${min} to ${max}, found "${text}".`);
}
