/** Conduit as a process of its own, as `npm start` runs it: for tests that kill it. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const main = fileURLToPath(new URL("../../src/main.ts", import.meta.url));
const startTimeoutMs = 30_000;

export interface ConduitProcess {
  readonly url: string;
  readonly child: ChildProcess;
  /** All it printed so far. */
  output(): string;
  /** Sends the signal and waits for the end; gives the exit code. */
  end(signal: NodeJS.Signals): Promise<number | null>;
}

/** Starts the process on a free port and waits until it says that it runs. Raises with its output when it ends before. */
export async function spawnConduit(
  folder: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<ConduitProcess> {
  const child = spawn(process.execPath, [main], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, PORT: "0", RUNGS_DIR: folder, RUNGS_LOG_LEVEL: "error", ...environment },
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on("data", (chunk: Buffer) => {
      output = `${output}${chunk}`.slice(-20_000);
    });
  }
  const url = await new Promise<string>((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error(`Conduit did not start within ${startTimeoutMs} ms:\n${output}`)),
      startTimeoutMs,
    );
    const look = () => {
      const found = /Open\s+(http:\S+)/.exec(output)?.[1];
      if (found === undefined) return;
      clearTimeout(timer);
      resolve(found);
    };
    child.stdout?.on("data", look);
    child.once("exit", (code) => {
      clearTimeout(timer);
      reject(new Error(`Conduit ended with ${code}:\n${output}`));
    });
  });
  return {
    url,
    child,
    output: () => output,
    async end(signal) {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
      const ended = once(child, "exit");
      child.kill(signal);
      await ended;
      return child.exitCode;
    },
  };
}

/** Process id of the embedded server in a data folder; undefined when none is noted. */
export async function databasePid(folder: string, shard = 0): Promise<number | undefined> {
  const text = await readFile(join(folder, "database", `shard-${shard}`, "data", "postmaster.pid"), "utf8").catch(
    () => undefined,
  );
  return text === undefined ? undefined : Number(text.split("\n")[0]);
}
