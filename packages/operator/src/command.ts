/** What every command is: citty's description of it, with examples, run with an output and a signal. */
import type { ArgsDef, CommandDef } from "citty";
import type { Environment } from "rungs/topology";
import type { Output } from "./output.ts";

/** What a command gets beside its own arguments. */
export interface CommandContext {
  readonly output: Output;
  readonly environment: Environment;
  /** Where the config file and relative folders are looked for. */
  readonly folder: string;
  /** Aborted by Ctrl-C and SIGTERM; pass it on to everything that waits. */
  readonly signal: AbortSignal;
  /** Asks a question that is answered by yes or no; undefined where nobody can answer. */
  readonly confirm: ((question: string) => Promise<boolean>) | undefined;
}

/** Values of the arguments by name, as typed; a flag that was not given is undefined. */
export interface Values {
  readonly text: (name: string) => string | undefined;
  /** All values of a flag that may be given several times, in their order; of others the last one counts. */
  readonly texts: (name: string) => readonly string[];
  readonly isSet: (name: string) => boolean;
  /** Words that belong to no flag. */
  readonly words: readonly string[];
}

/** One command, or a group of them. */
export interface Command {
  /** Name and description, flags and sub-commands, as citty renders them in the help. */
  readonly definition: CommandDef<ArgsDef>;
  /** Whole command lines, with what they do; shown by `--help`. */
  readonly examples: readonly (readonly [line: string, what: string])[];
  /** Most words besides flags; default 0. */
  readonly wordsMax?: number;
  /** A command that runs until it is stopped: Ctrl-C and SIGTERM are its ordinary end, with exit code 0. Default false. */
  readonly endsBySignal?: boolean;
  /** Commands below it, by name. */
  readonly commands?: Readonly<Record<string, () => Promise<Command>>>;
  /** Absent: a group that only has commands below it. Whatever it raises becomes a message and an exit code. */
  readonly run?: (values: Values, context: CommandContext) => Promise<void>;
}
