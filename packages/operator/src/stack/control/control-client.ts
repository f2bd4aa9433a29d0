/** Talks to the launcher of a folder. */
import { request } from "node:http";
import { UnavailableError } from "rungs";
import type { OperatorAnswers, OperatorQuestion } from "rungs/operations";
import { NotFoundError, ToldError } from "../../exit-code.ts";
import type { RegionsReport, StackStatus } from "../component.ts";
import type { Answered } from "../groups/questions.ts";
import { readRecord, runningLauncher } from "../stack-record.ts";

const statusWithinMs = 10_000;
/** A rolling restart of many processes. */
const changeWithinMs = 15 * 60_000;

/** Status of the stack in this folder; undefined when none runs. Raises `SERVER_START_FAILED` when its launcher does not answer. */
export async function askStatus(folder: string, signal: AbortSignal): Promise<StackStatus | undefined> {
  if ((await runningLauncher(folder)) === undefined) return undefined;
  const lines = ask(
    folder,
    { method: "GET", path: "/status" },
    AbortSignal.any([signal, AbortSignal.timeout(statusWithinMs)]),
  );
  for await (const line of lines) return JSON.parse(line) as StackStatus;
  return undefined;
}

/** The regions of the stack in this folder; undefined when none runs. Raises what the launcher says of one without regions. */
export async function askRegions(folder: string, signal: AbortSignal): Promise<RegionsReport | undefined> {
  if ((await runningLauncher(folder)) === undefined) return undefined;
  const within = AbortSignal.any([signal, AbortSignal.timeout(statusWithinMs)]);
  for await (const line of ask(folder, { method: "GET", path: "/regions" }, within)) {
    const said = JSON.parse(line) as RegionsReport | { error: ConstructorParameters<typeof ToldError>[0] };
    if ("error" in said) throw new ToldError(said.error);
    return said;
  }
  return undefined;
}

/** Asks for a change and tells its progress; gives what the launcher answers after it, most often the status. */
export async function askChange<T = StackStatus>(
  folder: string,
  path: string,
  options: { readonly signal: AbortSignal; readonly onProgress: (text: string) => void },
): Promise<T> {
  if ((await runningLauncher(folder)) === undefined) throw nothingRuns(folder);
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(changeWithinMs)]);
  for await (const line of ask(folder, { method: "POST", path }, signal)) {
    const said = JSON.parse(line) as {
      progress?: string;
      done?: T;
      error?: { code: string; message: string };
      launcherPid?: number;
    };
    if (said.progress !== undefined) options.onProgress(said.progress);
    if (said.error !== undefined) throw new ToldError(said.error);
    if (said.done !== undefined) return said.done;
    if (said.launcherPid !== undefined) return said as unknown as T;
  }
  throw noAnswer("it broke off");
}

/** Asks every web process, or one of them. Raises `NotFoundError` when nothing runs there. */
export async function askWeb<Q extends OperatorQuestion>(
  folder: string,
  question: Q,
  { of, signal }: { readonly of: "all" | "one"; readonly signal: AbortSignal },
): Promise<Answered<OperatorAnswers[Q["about"]]>[]> {
  if ((await runningLauncher(folder)) === undefined) throw nothingRuns(folder);
  const lines = ask(
    folder,
    { method: "POST", path: `/ask?of=${of}`, body: JSON.stringify(question) },
    AbortSignal.any([signal, AbortSignal.timeout(statusWithinMs)]),
  );
  for await (const line of lines) {
    const said = JSON.parse(line) as
      | Answered<OperatorAnswers[Q["about"]]>[]
      | { error: ConstructorParameters<typeof ToldError>[0] };
    if (Array.isArray(said)) return said;
    throw new ToldError(said.error);
  }
  throw noAnswer("it broke off");
}

/** Nothing runs there. */
export function nothingRuns(folder: string): NotFoundError {
  return new NotFoundError(`Nothing runs in ${folder}. Start it with: rungs up`);
}

/** Yields the lines of the answer. */
async function* ask(
  folder: string,
  { body, ...options }: { readonly method: string; readonly path: string; readonly body?: string },
  signal: AbortSignal,
): AsyncGenerator<string> {
  const record = await readRecord(folder);
  if (record === undefined) throw noAnswer("it is still starting");
  const response = await new Promise<import("node:http").IncomingMessage>((resolve, reject) => {
    const asked = request({ socketPath: record.control, agent: false, signal, ...options }, resolve);
    asked.once("error", reject);
    asked.end(body);
  }).catch((error: NodeJS.ErrnoException) => {
    signal.throwIfAborted();
    throw noAnswer(
      error.code === "ENOENT" || error.code === "ECONNREFUSED" ? "it is still starting or stopping" : error.message,
    );
  });
  let rest = "";
  try {
    for await (const text of response.setEncoding("utf8")) {
      const lines = `${rest}${text}`.split("\n");
      rest = lines.pop() ?? "";
      yield* lines;
    }
  } catch (error) {
    signal.throwIfAborted();
    throw noAnswer(error instanceof Error ? error.message : String(error));
  }
  if (rest !== "") yield rest;
}

function noAnswer(why: string): UnavailableError {
  return new UnavailableError("SERVER_START_FAILED", `The launcher did not answer: ${why}. Try again in a moment.`, {
    canRetry: true,
  });
}
