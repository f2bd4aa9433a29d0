/** Run as a process of its own by lifecycle.test.ts: an app that starts and stops in the way its argument says. */
import { runUntilSignal } from "../../src/kernel/lifecycle.ts";

const mode = process.argv[2];
const say = (line: string) => void process.stdout.write(`${line}\n`);

async function start(): Promise<void> {
  say("ready");
  if (mode === "starting") await new Promise(() => {});
  if (mode === "failing") throw new Error("port taken");
}

async function stop(): Promise<readonly Error[]> {
  say("stop");
  if (mode === "hang") await new Promise(() => {});
  return [];
}

try {
  const errors = await runUntilSignal(stop, { start });
  say(`errors ${errors.length}`);
} catch (error) {
  say(`raised ${(error as Error).message}`);
  process.exitCode = 3;
}
