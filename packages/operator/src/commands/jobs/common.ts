/** What the commands about jobs have in common. */
import type { ArgsDef } from "citty";
import { type MissingPlace, type OpenJobs, openJobs } from "rungs/jobs";
import { HandlerUnknownError } from "rungs/queue";
import { nearestName } from "rungs/topology";
import type { CommandContext, Values } from "../../command.ts";
import { NotFoundError, UsageError } from "../../exit-code.ts";
import { topologyFlags } from "../../topology-flags.ts";
import { databasesOf } from "../stack/databases.ts";

/** Flags of each of them. */
export const jobFlags = {
  ...topologyFlags,
  json: { type: "boolean", description: "Print JSON for programs" },
} satisfies ArgsDef;

/** Flags that choose jobs. */
export const handlerFlag = {
  handler: { type: "string", valueHint: "name", description: 'Jobs of one handler, e.g. "media.render"' },
} satisfies ArgsDef;

/** The handler as a word of its own. */
export const handlerWord = {
  handler: { type: "positional", required: false, description: "Name of the handler, as `rungs jobs` shows it" },
} satisfies ArgsDef;

/** About the handler that was named. */
export const knownHandler = {
  /** Raises {@link UsageError} when none is. */
  named({ words }: Values, verb: string): string {
    const [handler] = words;
    if (handler !== undefined) return handler;
    throw new UsageError(`Name a handler: rungs jobs ${verb} HANDLER.\nTry: rungs jobs ${verb} --help`);
  },

  /** Tells which one may have been meant where the app has none of that name. */
  async orNearest<R>(call: () => Promise<R>): Promise<R> {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof HandlerUnknownError)) throw error;
      const meant = nearestName(error.handler, error.known);
      throw new NotFoundError(meant === undefined ? error.message : `${error.message} Did you mean ${meant}?`);
    }
  },
};

/** For JSON: what did not answer and was passed over; nothing where all did. */
export function missingOf(jobs: OpenJobs): { readonly missing?: readonly MissingPlace[] } {
  const missing = jobs.missing();
  return missing.length === 0 ? {} : { missing };
}

/** Opens the app's jobs for the time of `use`; a signal ends the wait, and the server ends the statement under way. */
export async function withJobs(
  values: Values,
  context: CommandContext,
  use: (jobs: OpenJobs) => Promise<void>,
): Promise<void> {
  const { signal } = context;
  const { topology, environment } = await databasesOf(values, context);
  const jobs = await openJobs(topology, { environment });
  const stopped = Promise.withResolvers<never>();
  const stop = () => stopped.reject(signal.reason);
  signal.addEventListener("abort", stop);
  try {
    signal.throwIfAborted();
    await Promise.race([use(jobs), stopped.promise]);
    for (const { name, reason } of jobs.missing())
      context.output.remark(`Without ${name}, which is missing here: ${reason}`);
  } finally {
    signal.removeEventListener("abort", stop);
    if (!signal.aborted) await jobs.close();
  }
}
