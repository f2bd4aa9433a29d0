/** `rungs jobs`: the messages that wait for their handlers. Alone it counts them; the commands below it are in `jobs/`. */
import { setTimeout as sleep } from "node:timers/promises";
import type { JobCounts } from "rungs/queue";
import type { Command, CommandContext } from "../command.ts";
import { counted, duration, type Output, plain } from "../output.ts";
import { wholeNumber } from "../parse.ts";
import { jobFlags, missingOf, withJobs } from "./jobs/common.ts";

const watchEveryMs = 2_000;
/** An hour. */
const timesDefault = 1_800;
const timesMax = 1_000_000;

/** The command and those below it. */
export const jobs: Command = {
  definition: {
    meta: { name: "jobs", description: "Count the app's jobs by handler and state" },
    args: {
      watch: { type: "boolean", description: "Count again every 2 seconds, until Ctrl-C" },
      times: {
        type: "string",
        valueHint: "n",
        description: `Counts of --watch before it ends (default ${timesDefault})`,
      },
      ...jobFlags,
    },
  },
  examples: [
    ["rungs jobs", "counts by handler and state"],
    ["rungs jobs --watch", "the same, every 2 seconds"],
    ["rungs jobs dead", "the dead letters: jobs that were given up"],
    ["rungs jobs retry --handler media.render --yes", "try the dead letters of one handler again"],
    ["rungs jobs pause media.render", "begin none of that handler's any more, until it is resumed"],
    ["DATABASE_URL=postgres://user@host/app rungs jobs --json", "of an app on a server, for programs"],
  ],
  commands: {
    list: async () => (await import("./jobs/list.ts")).list,
    dead: async () => (await import("./jobs/list.ts")).dead,
    show: async () => (await import("./jobs/show.ts")).show,
    retry: async () => (await import("./jobs/change.ts")).retry,
    drop: async () => (await import("./jobs/change.ts")).drop,
    pause: async () => (await import("./jobs/pause.ts")).pause,
    resume: async () => (await import("./jobs/pause.ts")).resume,
    replay: async () => (await import("./jobs/replay.ts")).replay,
  },
  async run(values, context) {
    const times = wholeNumber(values, { name: "times", min: 1, max: timesMax, fallback: timesDefault });
    await withJobs(values, context, async (open) => {
      const count = async () => {
        const handlers = await open.counts();
        context.output.json({ handlers, ...missingOf(open) });
        return handlers;
      };
      if (values.isSet("watch")) await watch(count, times, context);
      else show(await count(), context.output);
    });
  },
};

async function watch(count: () => Promise<JobCounts[]>, times: number, context: CommandContext): Promise<void> {
  const { output, signal } = context;
  for (let round = 0; round < times && !signal.aborted; round++) {
    const handlers = await count();
    output.control("\u001B[H\u001B[2J");
    output.line(`${new Date().toISOString()}, every ${watchEveryMs / 1_000} s, Ctrl-C ends it`);
    // On a terminal one screen is shown: head, remarks and this line take five of its rows.
    show(handlers, output, output.isTerminal ? Math.max(1, output.rows - 5) : handlers.length);
    if (round + 1 < times) await sleep(watchEveryMs, undefined, { signal });
  }
}

function show(handlers: readonly JobCounts[], output: Output, rowsMax = handlers.length): void {
  if (handlers.length === 0) {
    output.line("No jobs: nothing waits, and nothing was given up.");
    return;
  }
  const { colors } = output;
  const number = (value: number) => (value === 0 ? colors.dim("0") : value.toLocaleString("en-US"));
  const age = (ms: number | null) => (ms === null ? colors.dim("-") : duration(ms));
  output.table({
    head: ["HANDLER", "READY", "OLDEST", "RUNNING", "WAITING", "SCHEDULED", "RETRYING", "DEAD", "OLDEST"],
    right: [1, 2, 3, 4, 5, 6, 7, 8],
    rows: handlers
      .slice(0, rowsMax)
      .map((of) => [
        of.isPaused ? `${plain(of.handler)} ${colors.yellow("(paused)")}` : plain(of.handler),
        number(of.ready),
        age(of.oldestReadyAgeMs),
        number(of.running),
        number(of.waiting),
        number(of.scheduled),
        of.retrying === 0 ? number(0) : colors.yellow(number(of.retrying)),
        of.dead === 0 ? number(0) : colors.red(number(of.dead)),
        age(of.oldestDeadAgeMs),
      ]),
  });
  const paused = handlers.filter(({ isPaused }) => isPaused).map((of) => plain(of.handler));
  if (paused.length > 0) output.line(`Paused handlers go on after: rungs jobs resume ${paused[0]}`);
  const hidden = handlers.length - rowsMax;
  if (hidden > 0) output.line(`and ${counted(hidden, "more handler")}`);
}
