/** `rungs jobs list` and `rungs jobs dead`: jobs, page by page. */
import type { ArgsDef } from "citty";
import { type JobFilter, type JobState, type JobSummary, jobPageMax, jobStates } from "rungs/queue";
import type { Command, CommandContext, Values } from "../../command.ts";
import { duration, type Output, plain, shorten } from "../../output.ts";
import { wholeNumber } from "../../parse.ts";
import { handlerFlag, jobFlags, missingOf, withJobs } from "./common.ts";

const limitDefault = 20;

const pageFlags = {
  ...handlerFlag,
  key: { type: "string", valueHint: "key", description: "Jobs of one key" },
  limit: { type: "string", valueHint: "n", description: `Jobs a page, 1 to ${jobPageMax} (default ${limitDefault})` },
  after: { type: "string", valueHint: "mark", description: "The next page: the mark printed below the page before" },
  ...jobFlags,
} satisfies ArgsDef;

/** `rungs jobs list`. */
export const list: Command = {
  definition: {
    meta: {
      name: "list",
      description: "List jobs: those that wait or run in the order of their publishing, then the dead",
    },
    args: {
      state: { type: "enum", options: [...jobStates], description: "Jobs in one state" },
      ...pageFlags,
    },
  },
  examples: [
    ["rungs jobs list --state retrying", "what failed and will be tried again"],
    ["rungs jobs list --handler feeds.fanOut --key article:7", "what waits for one key"],
    ["rungs jobs list --limit 100 --json", "a page for programs; give its `next` to --after"],
  ],
  run: (values, context) => listJobs(values, context, values.text("state") as JobState | undefined),
};

/** `rungs jobs dead`. */
export const dead: Command = {
  definition: {
    meta: { name: "dead", description: "List the dead letters: jobs that were given up, with the reason" },
    args: pageFlags,
  },
  examples: [
    ["rungs jobs dead", "the first page of all of them"],
    ["rungs jobs dead --handler payments.charge", "those of one handler"],
  ],
  run: (values, context) => listJobs(values, context, "dead"),
};

async function listJobs(values: Values, context: CommandContext, state: JobState | undefined): Promise<void> {
  const { output } = context;
  const limit = wholeNumber(values, { name: "limit", min: 1, max: jobPageMax, fallback: limitDefault });
  const given = { handler: values.text("handler"), key: values.text("key"), after: values.text("after"), state };
  const filter = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  await withJobs(values, context, async (jobs) => {
    const page = await jobs.list({ ...filter, limit } satisfies JobFilter);
    output.json({ ...page, ...missingOf(jobs) });
    if (page.jobs.length === 0) return output.line("No jobs.");
    show(page.jobs, output, state === "dead");
    if (page.next !== null) output.line(`\nThere are more. Next page: the same with --after ${page.next}`);
  });
}

function show(jobs: readonly JobSummary[], output: Output, isDead: boolean): void {
  const nowMs = Date.now();
  // A future time is told by "in".
  const when = (date: Date) => {
    const ms = nowMs - date.getTime();
    return ms >= 0 ? `${duration(ms)} ago` : `in ${duration(-ms)}`;
  };
  output.table({
    head: ["ID", "HANDLER", ...(isDead ? [] : ["STATE"]), "KEY", "TRIES", isDead ? "DIED" : "DUE", "LAST ERROR"],
    right: [isDead ? 3 : 4],
    rows: jobs.map((job) => [
      job.id,
      plain(job.handler),
      ...(isDead ? [] : [job.state]),
      shorten(job.key ?? "-", 40),
      String(job.attempts),
      when(job.runAt),
      shorten(job.lastError ?? "-", 60),
    ]),
  });
}
