/** Runs the real bin as a child process. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";

/** The bin, as npm links it. */
export const bin = fileURLToPath(new URL("../../bin/rungs.mjs", import.meta.url));
const endWithinMs = 60_000;

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliOptions {
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly folder?: string;
  /** Killed after this; default 60,000. */
  readonly endWithinMs?: number;
  /** Sends SIGINT after this; default never. */
  readonly killAfterMs?: number;
  /** Called with all of stdout so far; may signal the process. */
  readonly onOutput?: (stdout: string, kill: (signal: NodeJS.Signals) => void) => void;
}

/** Runs `rungs ARGS` without a terminal and waits for its end. */
export async function rungs(args: readonly string[], options: CliOptions = {}): Promise<Ended> {
  const { environment = {}, folder = tmpdir(), killAfterMs, onOutput } = options;
  const child = spawn(process.execPath, [bin, ...args], {
    cwd: folder,
    env: { ...process.env, DATABASE_URL: undefined, RUNGS_DIR: undefined, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: options.endWithinMs ?? endWithinMs,
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    onOutput?.(stdout, (signal) => child.kill(signal));
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const kill = killAfterMs === undefined ? undefined : setTimeout(() => child.kill("SIGINT"), killAfterMs);
  const [code] = (await once(child, "close")) as [number | null];
  clearTimeout(kill);
  return { code, stdout, stderr };
}
