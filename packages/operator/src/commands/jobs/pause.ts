/** `rungs jobs pause HANDLER` and `rungs jobs resume HANDLER`. */
import type { OpenJobs } from "rungs/jobs";
import type { Command, CommandContext, Values } from "../../command.ts";
import { handlerWord, jobFlags, knownHandler, withJobs } from "./common.ts";

/** `rungs jobs pause`. */
export const pause: Command = {
  definition: {
    meta: { name: "pause", description: "Begin no more messages of a handler, in any process, until it is resumed" },
    args: { ...handlerWord, ...jobFlags },
  },
  examples: [
    ["rungs jobs pause mail.send", "within a second; what runs is finished, what is published waits"],
    ["rungs jobs resume mail.send", "it goes on where it was"],
  ],
  wordsMax: 1,
  run: (values, context) =>
    change(values, context, {
      verb: "pause",
      act: (jobs, handler) => jobs.pause(handler),
      done: (handler) =>
        `${handler} is paused: in a second no process begins its messages any more. They wait until: rungs jobs resume ${handler}`,
      idle: (handler) => `${handler} was paused already.`,
      answer: (handler, wasChanged) => ({ handler, isPaused: true, wasChanged }),
    }),
};

/** `rungs jobs resume`. */
export const resume: Command = {
  definition: {
    meta: { name: "resume", description: "Let a paused handler go on" },
    args: { ...handlerWord, ...jobFlags },
  },
  examples: [["rungs jobs resume mail.send", "with the oldest of what waits, in the order of each key"]],
  wordsMax: 1,
  run: (values, context) =>
    change(values, context, {
      verb: "resume",
      act: (jobs, handler) => jobs.resume(handler),
      done: (handler) => `${handler} goes on.`,
      idle: (handler) => `${handler} was not paused.`,
      answer: (handler, wasChanged) => ({ handler, isPaused: false, wasChanged }),
    }),
};

interface Change {
  readonly verb: string;
  readonly act: (jobs: OpenJobs, handler: string) => Promise<boolean>;
  readonly done: (handler: string) => string;
  readonly idle: (handler: string) => string;
  readonly answer: (handler: string, wasChanged: boolean) => unknown;
}

async function change(values: Values, context: CommandContext, kind: Change): Promise<void> {
  const { output } = context;
  const handler = knownHandler.named(values, kind.verb);
  await withJobs(values, context, async (jobs) => {
    const wasChanged = await knownHandler.orNearest(() => kind.act(jobs, handler));
    output.json(kind.answer(handler, wasChanged));
    output.line((wasChanged ? kind.done : kind.idle)(handler));
  });
}
