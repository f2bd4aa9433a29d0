/** `rungs jobs retry` and `rungs jobs drop`: by ids, or by handler and state. */
import type { ArgsDef } from "citty";
import type { OpenJobs } from "rungs/jobs";
import { type JobSelection, jobSelectionMax, jobStates } from "rungs/queue";
import type { Command, CommandContext, Values } from "../../command.ts";
import { NotFoundError, UsageError } from "../../exit-code.ts";
import { counted } from "../../output.ts";
import { wholeNumber } from "../../parse.ts";
import { handlerFlag, jobFlags, missingOf, withJobs } from "./common.ts";

const limitDefault = 1_000;
/** Ids on one command line. */
const idsMax = 1_000;

type State = NonNullable<JobSelection["state"]>;

/** The two commands differ in words and in the call. */
interface Change {
  readonly verb: "retry" | "drop";
  readonly done: "retried" | "dropped";
  readonly states: readonly State[];
  readonly question: string;
  readonly act: (jobs: OpenJobs, selection: JobSelection) => Promise<number>;
  readonly none: string;
}

const retrying: Change = {
  verb: "retry",
  done: "retried",
  states: ["dead", "retrying", "scheduled"],
  question: "Try them again?",
  act: (jobs, selection) => jobs.retry(selection),
  none: "They may be done, be running, or be ready already.",
};

const dropping: Change = {
  verb: "drop",
  done: "dropped",
  states: jobStates.filter((state) => state !== "running"),
  question: "Delete them for good?",
  act: (jobs, selection) => jobs.drop(selection),
  none: "They may be done or be running; what a worker has is never dropped.",
};

const flagsOf = ({ states, verb }: Change) =>
  ({
    id: { type: "positional", required: false, description: "Ids of messages, from list or dead" },
    ...handlerFlag,
    state: { type: "enum", options: [...states], description: "Jobs in one state (default dead)" },
    limit: {
      type: "string",
      valueHint: "n",
      description: `Most jobs to ${verb}, 1 to ${jobSelectionMax} (default ${limitDefault})`,
    },
    yes: { type: "boolean", description: "Do not ask" },
    ...jobFlags,
  }) satisfies ArgsDef;

/** `rungs jobs retry`. */
export const retry: Command = {
  definition: {
    meta: {
      name: "retry",
      description: "Publish dead jobs again, at the end of their key, or make delayed ones due now",
    },
    args: flagsOf(retrying),
  },
  examples: [
    ["rungs jobs retry 019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6071", "one message, for all of its handlers"],
    ["rungs jobs retry --handler media.render --limit 50", "dead letters of one handler; asks first"],
    ["rungs jobs retry --handler media.render --state retrying --yes", "do not wait for their next try"],
  ],
  wordsMax: idsMax,
  run: (values, context) => change(retrying, values, context),
};

/** `rungs jobs drop`. */
export const drop: Command = {
  definition: {
    meta: { name: "drop", description: "Delete jobs that no worker has, dead ones by default" },
    args: flagsOf(dropping),
  },
  examples: [
    ["rungs jobs drop 019ab3c4-5d6e-7f80-9a1b-2c3d4e5f6071", "one message, for all of its handlers"],
    ["rungs jobs drop --handler media.render", "dead letters of one handler; asks first"],
    ["rungs jobs drop --handler media.render --state ready --limit 100000 --yes", "what waits, without asking"],
  ],
  wordsMax: idsMax,
  run: (values, context) => change(dropping, values, context),
};

async function change(kind: Change, values: Values, context: CommandContext): Promise<void> {
  const { output } = context;
  const selection = selectionOf(kind, values);
  await withJobs(values, context, async (jobs) => {
    const { ids } = selection;
    const isAgreed = ids !== undefined || values.isSet("yes") || (await agree(kind, jobs, selection, context));
    if (!isAgreed) return output.line("Nothing was changed.");
    const count = await kind.act(jobs, selection);
    if (ids !== undefined && count === 0) {
      throw new NotFoundError(`None of the ${counted(ids.length, "id")} has a job to ${kind.verb}. ${kind.none}`);
    }
    output.json({ [kind.done]: count, ...missingOf(jobs) });
    output.line(`${counted(count, "job")} ${kind.done}.`);
    if (ids === undefined && count === selection.limit) output.line(`That was the limit; there may be more.`);
  });
}

/** Ids, or a handler and a state. Both, or neither, is refused: it would not say what is meant. */
function selectionOf({ verb, states }: Change, values: Values): JobSelection {
  const { words } = values;
  const limit = wholeNumber(values, { name: "limit", min: 1, max: jobSelectionMax, fallback: limitDefault });
  const handler = values.text("handler");
  const state = values.text("state") as State | undefined;
  const isFiltered = handler !== undefined || state !== undefined;
  const help = `\nTry: rungs jobs ${verb} --help`;
  if (words.length > 0) {
    if (isFiltered) throw new UsageError(`Give ids, or --handler and --state, not both.${help}`);
    // One message has a job for each of several handlers; an id names them all.
    return { ids: words, limit: jobSelectionMax };
  }
  if (!isFiltered) {
    throw new UsageError(
      `Say which jobs to ${verb}: ids, or --handler NAME, or --state ${states.join("|")}. All at once is refused.${help}`,
    );
  }
  return { ...(handler === undefined ? {} : { handler }), state: state ?? "dead", limit };
}

async function agree(
  { verb, question }: Change,
  jobs: OpenJobs,
  { handler, state = "dead", limit }: JobSelection,
  { confirm }: CommandContext,
): Promise<boolean> {
  if (confirm === undefined) {
    throw new UsageError(`This would ${verb} many jobs, and nobody is there to be asked. Add --yes to do it.`);
  }
  const counts = await jobs.counts();
  const found = counts
    .filter((of) => handler === undefined || of.handler === handler)
    .reduce((sum, of) => sum + of[state], 0);
  const count = Math.min(found, limit);
  if (count === 0) return true;
  const of = handler === undefined ? "all handlers" : handler;
  return confirm(`${counted(count, `${state} job`)} of ${of}. ${question}`);
}
