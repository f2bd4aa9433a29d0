/** Runs a command line: whatever goes wrong becomes a message on stderr and an exit code. */
import { createInterface } from "node:readline/promises";
import type { Environment } from "rungs/topology";
import type { Command } from "./command.ts";
import { exitCode, problemOf } from "./exit-code.ts";
import { helpOf } from "./help.ts";
import { createOutput, type Streams } from "./output.ts";
import { findCommand, readValues, wantsHelp } from "./parse.ts";

/** What a command line runs in. */
export interface Surroundings extends Streams {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean };
  readonly environment: Environment;
  readonly folder: string;
  /** Aborted when the user or a supervisor wants it to end, with the signal's name as the reason. */
  readonly signal: AbortSignal;
}

/** Gives the exit code; never raises. */
export async function runCommandLine(
  root: Command,
  args: readonly string[],
  surroundings: Surroundings,
): Promise<number> {
  const { stdin, stderr, environment, folder, signal } = surroundings;
  const isJson = args.includes("--json");
  const output = createOutput(surroundings, { isJson, environment });
  let endsBySignal = false;
  try {
    const found = await findCommand(root, args);
    endsBySignal = found.command.endsBySignal ?? false;
    const { run } = found.command;
    if (wantsHelp(found.rest)) {
      surroundings.stdout.write(`${await helpOf(found)}\n`);
      return exitCode.ok;
    }
    const values = readValues(found);
    if (run === undefined) {
      stderr.write(`${await helpOf(found)}\n`);
      return exitCode.usage;
    }
    const canAsk = stdin.isTTY === true && output.isTerminal && !isJson;
    const confirm = canAsk ? (question: string) => ask(question, surroundings) : undefined;
    await run(values, { output, environment, folder, signal, confirm });
    return signal.aborted && !endsBySignal ? stoppedBy(signal) : exitCode.ok;
  } catch (error) {
    if (signal.aborted) return endsBySignal ? exitCode.ok : stoppedBy(signal);
    const problem = problemOf(error);
    const { code, message } = problem;
    stderr.write(isJson ? `${JSON.stringify({ error: { code, message } })}\n` : `${message}\n`);
    return problem.exitCode;
  }
}

function stoppedBy(signal: AbortSignal): number {
  return signal.reason === "SIGINT" ? exitCode.interrupted : exitCode.terminated;
}

/** Ctrl-D counts as no. Ctrl-C, which the terminal hands to whoever reads it, becomes the signal that it is elsewhere. */
async function ask(question: string, { stdin, stdout, signal }: Surroundings): Promise<boolean> {
  const terminal = createInterface({ input: stdin, output: stdout });
  terminal.on("SIGINT", () => process.kill(process.pid, "SIGINT"));
  const closed = new Promise<string>((resolve) => terminal.once("close", () => resolve("")));
  try {
    const answer = await Promise.race([terminal.question(`${question} [y/N] `, { signal }), closed]);
    return /^y(es)?$/i.test(answer.trim());
  } finally {
    terminal.close();
  }
}
