/** What the commands about jobs have in common. */
import type { ArgsDef } from "citty";
import { type OpenJobs, openJobs } from "rungs/jobs";
import type { CommandContext, Values } from "../../command.ts";
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
  } finally {
    signal.removeEventListener("abort", stop);
    if (!signal.aborted) await jobs.close();
  }
}
