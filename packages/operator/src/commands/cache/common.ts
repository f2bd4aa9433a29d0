/** What the commands about the cache have in common: asking the web processes of the running stack. */
import { UnavailableError } from "rungs";
import type { OperatorAnswers, OperatorQuestion } from "rungs/operations";
import type { CommandContext, Values } from "../../command.ts";
import { ToldError } from "../../exit-code.ts";
import { askWeb } from "../../stack/control/control-client.ts";
import { folderOf, stackFlags } from "../stack/common.ts";

/** Flags of each of them. */
export const cacheFlags = stackFlags;

/** What one process answered. */
export interface Told<T> {
  readonly process: string;
  readonly answer: T;
}

/**
 * Answers of the web processes, or of one. A process that does not answer is remarked on; raises what it said when none does,
 * `NotFoundError` when nothing runs, and `SERVER_START_FAILED` when no web process is ready.
 */
export async function askProcesses<Q extends OperatorQuestion>(
  question: Q,
  { of, values, context }: { readonly of: "all" | "one"; readonly values: Values; readonly context: CommandContext },
): Promise<Told<OperatorAnswers[Q["about"]]>[]> {
  const said = await askWeb(await folderOf(values, context), question, { of, signal: context.signal });
  const told = said.filter((one) => "answer" in one);
  const failures = said.filter((one) => "error" in one);
  const [failure] = failures;
  if (told.length === 0 && failure !== undefined) throw new ToldError(failure.error);
  if (told.length === 0) {
    throw new UnavailableError("SERVER_START_FAILED", "No web process is ready. See: rungs status", { canRetry: true });
  }
  for (const { process, error } of failures) context.output.remark(`${process} is not counted: ${error.message}`);
  return told;
}
