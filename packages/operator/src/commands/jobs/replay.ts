/** `rungs jobs replay HANDLER --from TIME`: deliver once more what a handler was given since a time. */
import { RungsError } from "rungs";
import { replaySafeMs } from "rungs/queue";
import type { Command } from "../../command.ts";
import { UsageError } from "../../exit-code.ts";
import { handlerWord, jobFlags, knownHandler, withJobs } from "./common.ts";

const unitsMs: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `rungs jobs replay`. */
export const replay: Command = {
  definition: {
    meta: {
      name: "replay",
      description: "Deliver once more what was published for a handler since a time; with Kafka, which keeps messages",
    },
    args: {
      ...handlerWord,
      from: {
        type: "string",
        valueHint: "time",
        description: "The first message's time: 2026-11-28T09:00Z, or how long ago: 90s, 30m, 2h, 7d",
      },
      "repeat-effects": {
        type: "boolean",
        description: `Go back more than ${replaySafeMs / 3_600_000} hours: what the handler did longer ago than that happens a second time`,
      },
      ...jobFlags,
    },
  },
  examples: [
    ["rungs jobs pause search.index", "first: nobody may be at work on the handler"],
    ["rungs jobs replay search.index --from 2h", "what it did in its once() steps is not done again"],
    ["rungs jobs resume search.index", "then it gets all since that time"],
    [
      "rungs jobs replay search.rebuild --from 30d --repeat-effects",
      "a handler that is new, over what Kafka still has",
    ],
  ],
  wordsMax: 1,
  async run(values, context) {
    const { output } = context;
    const handler = knownHandler.named(values, "replay");
    const from = timeOf(values.text("from"), Date.now());
    await withJobs(values, context, async (jobs) => {
      const mayRepeat = values.isSet("repeat-effects");
      await knownHandler
        .orNearest(() => jobs.replay(handler, { from, mayRepeat }))
        .catch((error: unknown) => {
          throw told(error, handler);
        });
      const paused = (await jobs.counts()).some((of) => of.handler === handler && of.isPaused);
      output.json({ handler, from, isPaused: paused });
      output.line(
        `${handler} gets all messages since ${from.toISOString()} once more${paused ? `, after: rungs jobs resume ${handler}` : "."}`,
      );
    });
  },
};

/** The command's words for what to do next. */
function told(error: unknown, handler: string): unknown {
  if (!(error instanceof RungsError)) return error;
  if (error.code === "HANDLER_AT_WORK") {
    return new UsageError(
      `A process is at work on ${handler}. Pause it first: rungs jobs pause ${handler}\nIt is free once what runs has ended; then say this again.`,
    );
  }
  return error.code === "REPLAY_REPEATS" ? new UsageError(`${error.message}\nTo say so: --repeat-effects`) : error;
}

/** A time, or how long ago it was. Raises {@link UsageError}. */
function timeOf(text: string | undefined, nowMs: number): Date {
  if (text === undefined)
    throw new UsageError("Say from when on: --from 2h, or a time.\nTry: rungs jobs replay --help");
  const ago = /^(\d{1,6})([smhd])$/.exec(text);
  const ms =
    ago === null
      ? /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d))?$/.test(text)
        ? Date.parse(text)
        : Number.NaN
      : nowMs - Number(ago[1]) * (unitsMs[ago[2] ?? ""] ?? Number.NaN);
  if (ms >= 0 && ms <= nowMs) return new Date(ms);
  throw new UsageError(
    `--from: expected a time that is past, as 2026-11-28T09:00Z or 2026-11-28T10:00+01:00, or how long ago, as 90s, 30m, 2h, 7d; found "${text}".`,
  );
}
