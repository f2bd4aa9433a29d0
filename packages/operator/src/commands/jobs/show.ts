/** `rungs jobs show ID`: all about one message. */
import type { OpenJobs } from "rungs/jobs";
import type { JobDetail } from "rungs/queue";
import type { Command } from "../../command.ts";
import { NotFoundError, UsageError } from "../../exit-code.ts";
import { type Output, plain } from "../../output.ts";
import { jobFlags, missingOf, withJobs } from "./common.ts";

/** `rungs jobs show`. */
export const show: Command = {
  definition: {
    meta: { name: "show", description: "Show one message: a job for each handler, its payload and its last error" },
    args: { id: { type: "positional", description: "The message's id, from list or dead" }, ...jobFlags },
  },
  examples: [
    ["rungs jobs show 019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6071", "fields that the event marks sensitive are redacted"],
  ],
  wordsMax: 1,
  async run(values, context) {
    const [id] = values.words;
    if (id === undefined) throw new UsageError("Name a job: rungs jobs show ID.\nTry: rungs jobs show --help");
    await withJobs(values, context, async (open) => {
      const jobs = await open.show(id);
      if (jobs.length === 0) throw new NotFoundError(`There is no job ${id}.${whyNone(open)}`);
      context.output.json({ jobs, ...missingOf(open) });
      for (const [index, job] of jobs.entries()) {
        if (index > 0) context.output.line("");
        showJob(job, context.output);
      }
    });
  },
};

function whyNone(open: OpenJobs): string {
  const missing = open.missing().map(({ name }) => name);
  const elsewhere = missing.length === 0 ? "" : `, or be on ${missing.join(" or ")}, which did not answer`;
  return ` It may be done: done jobs are not kept${elsewhere}.`;
}

function showJob(job: JobDetail, output: Output): void {
  const { colors } = output;
  const fields: [string, string][] = [
    ["id", job.id],
    ["handler", plain(job.handler)],
    ["event", plain(job.event)],
    ["version", String(job.version)],
    ["state", job.state === "dead" ? colors.red(job.state) : job.state],
    ["key", plain(job.key ?? "-")],
    ["priority", job.priority],
    ["tries", String(job.attempts)],
    ["published", job.publishedAt.toISOString()],
    [job.state === "dead" ? "died" : "due", job.runAt.toISOString()],
    ["worker", job.workerId ?? "-"],
    ["steps done", job.steps.length === 0 ? "-" : job.steps.map((step) => JSON.stringify(plain(step))).join(", ")],
    ["database", job.shard],
    ["last error", plain(job.lastError ?? "-")],
  ];
  for (const [name, value] of fields) output.line(`${colors.dim(name.padEnd(10))}  ${value}`);
  output.line(colors.dim("payload"));
  const lines = (JSON.stringify(job.payload, null, 2) ?? "null").split("\n");
  // Line by line: its own line ends stay.
  for (const text of lines) output.line(`  ${text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu, "\u{FFFD}")}`);
}
