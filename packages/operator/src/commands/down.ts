/** `rungs down`: stops the running stack from another terminal. */
import { setTimeout as sleep } from "node:timers/promises";
import { UnavailableError } from "rungs";
import type { Command } from "../command.ts";
import { askChange } from "../stack/control/control-client.ts";
import { isRunning, signalProcess } from "../stack/process/process-identity.ts";
import { clearUp, readRecord, runningLauncher } from "../stack/stack-record.ts";
import { folderOf, stackFlags } from "./stack/common.ts";

/** More than all bounds of a stop together. */
const endWithinMs = 90_000;

/** The command. */
export const down: Command = {
  definition: {
    meta: { name: "down", description: "Stop the running stack, and wait until it has stopped" },
    args: stackFlags,
  },
  examples: [["rungs down", "stops what runs in .rungs; nothing to stop is fine too"]],
  async run(values, context) {
    const { output, signal } = context;
    const folder = await folderOf(values, context);
    const launcher = await runningLauncher(folder);
    if (launcher === undefined) {
      const record = await readRecord(folder);
      const left = record === undefined ? [] : await clearUp(record);
      output.json({ stopped: left.length > 0, left });
      return output.line(
        left.length === 0 ? `Nothing runs in ${folder}.` : `Ended what a killed launcher had left: ${left.join(", ")}.`,
      );
    }
    // One that is still starting, or does not answer, understands a signal.
    await askChange(folder, "/down", { signal, onProgress: () => {} }).catch(() => signalProcess(launcher, "SIGTERM"));
    const until = performance.now() + endWithinMs;
    while (isRunning(launcher)) {
      if (performance.now() > until) {
        throw new UnavailableError(
          "SERVER_START_FAILED",
          `The launcher, process ${launcher.pid}, has not ended within ${endWithinMs / 1_000} s.`,
          { canRetry: true },
        );
      }
      await sleep(50, undefined, { signal });
    }
    output.json({ stopped: true, left: [] });
    output.line("Stopped.");
  },
};
