/** `rungs dev`: rung 1, started again whenever a file of the app changes. */
import { relative } from "node:path";
import type { Command, CommandContext } from "../command.ts";
import { watchParent } from "../stack/process/parent.ts";
import { watchSources } from "../stack/process/watch-sources.ts";
import { type Stack, startStack } from "../stack/stack.ts";
import { planOf, startFlags } from "./stack/common.ts";

const { install: _install, rung: _rung, ...flags } = startFlags;

/** The command. */
export const dev: Command = {
  definition: {
    meta: { name: "dev", description: "Start the app at rung 1, and again whenever one of its files changes" },
    args: flags,
  },
  examples: [
    ["rungs dev", "on http://127.0.0.1:3000"],
    ["rungs dev --port 4000 --dir /tmp/try", "elsewhere, with other data"],
  ],
  endsBySignal: true,
  async run(values, context) {
    const { output, environment, signal } = context;
    const plan = await planOf(values, context, "1");
    const ended = new AbortController();
    const either = AbortSignal.any([signal, ended.signal]);
    const parent = watchParent(environment, () => ended.abort());
    try {
      const tellFailure = (error: unknown) => output.remark(`${messageOf(error)}\nWaiting for a change ...`);
      const stack = await startStack({
        plan,
        environment,
        signal: either,
        onProgress: () => {},
        onWebFailure: tellFailure,
      });
      const { app, processes, dashboard } = await stack.status(either);
      output.json({ ready: true, app, dashboard, rung: plan.rung, processes });
      output.line(
        `${plan.app.name} runs at rung ${plan.rung} and starts again when a file changes.\n\n  Open   ${app}\n  Logs   rungs logs --follow\n\nCtrl-C stops it.`,
      );
      const reload = reloader(stack, context, tellFailure);
      const watcher = await watchSources(plan.app.folder, (file) => reload(relative(plan.app.folder, file)));
      await Promise.race([aborted(either), stack.downAsked]);
      watcher.close();
      await stack.stop();
    } catch (error) {
      if (!either.aborted) throw error;
    } finally {
      parent.stop();
    }
  },
};

/** Restarts one after the other: a change during a restart leads to one more. */
function reloader(
  stack: Stack,
  { output }: CommandContext,
  tellFailure: (error: unknown) => void,
): (file: string) => void {
  let isRunning = false;
  let next: string | undefined;
  const run = async () => {
    if (isRunning) return;
    isRunning = true;
    while (next !== undefined) {
      const file = next;
      next = undefined;
      const since = performance.now();
      try {
        for (const { name } of stack.groups.all) await stack.groups.restart(name, () => {});
        const ms = Math.round(performance.now() - since);
        output.json({ reloaded: true, file, ms });
        output.line(`${file} changed: started again in ${ms} ms`);
      } catch (error) {
        tellFailure(error);
      }
    }
    isRunning = false;
  };
  return (file) => {
    next = file;
    void run();
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
