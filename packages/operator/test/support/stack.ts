/** Starts `rungs up` on the stack app, as a user would. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { identify, isRunning, type ProcessIdentity } from "../../src/stack/process/process-identity.ts";
import { bin, type Ended, rungs } from "./cli.ts";

/** Folder of the app. */
export const stackApp = fileURLToPath(new URL("./stack-app/", import.meta.url));

export interface ReadyLine {
  readonly ready: boolean;
  readonly app: string;
  readonly dashboard: null;
  readonly rung: number;
  readonly processes: readonly {
    readonly name: string;
    readonly role: string;
    readonly pid: number;
    readonly port: number | null;
  }[];
}

export interface RunningStack {
  readonly folder: string;
  readonly launcher: ChildProcess;
  readonly line: ReadyLine;
  readonly app: string;
  readonly port: number;
  /** All that came out on stdout so far. */
  stdout(): string;
  stderr(): string;
  /** Runs another command on it. */
  run(...args: string[]): Promise<Ended>;
  status(): Promise<{ readonly running: boolean; readonly processes: ReadyLine["processes"] }>;
  /** Signals the launcher and gives its exit code. */
  end(signal?: NodeJS.Signals): Promise<number | null>;
  /** Ends it if it still runs, and removes its folder. */
  dispose(): Promise<void>;
}

const readyWithinMs = 90_000;

/** A folder that the databases' user can reach. */
export async function stackFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "rungs-stack-"));
  await chmod(folder, 0o755);
  return folder;
}

/** Starts it and waits for its line. `args` follow `up --json --port 0 --dir FOLDER`. */
export async function startStackApp(args: readonly string[], folder?: string): Promise<RunningStack> {
  const place = folder ?? (await stackFolder());
  const launcher = spawn(process.execPath, [bin, "up", "--json", "--port", "0", "--dir", place, ...args], {
    cwd: stackApp,
    env: {
      ...process.env,
      DATABASE_URL: undefined,
      REDIS_URL: undefined,
      RUNGS_DIR: undefined,
      npm_command: undefined,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  const ended = once(launcher, "exit");
  launcher.stderr?.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  const line = await new Promise<ReadyLine>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not ready: ${stdout}${stderr}`)), readyWithinMs);
    launcher.stdout?.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (!stdout.includes("\n")) return;
      clearTimeout(timer);
      resolve(JSON.parse(stdout.split("\n")[0] as string));
    });
    launcher.once("exit", (code) => reject(new Error(`rungs up ended with ${code}: ${stderr}`)));
  }).catch(async (error) => {
    launcher.kill("SIGKILL");
    throw error;
  });
  const end = async (signal: NodeJS.Signals = "SIGTERM") => {
    if (launcher.exitCode === null && launcher.signalCode === null) launcher.kill(signal);
    const [code] = (await ended) as [number | null];
    return code;
  };
  const run = (...words: string[]) => rungs([...words, "--dir", place], { folder: stackApp });
  return {
    folder: place,
    launcher,
    line,
    app: line.app,
    port: Number(new URL(line.app).port),
    stdout: () => stdout,
    stderr: () => stderr,
    run,
    status: async () => JSON.parse((await run("status", "--json")).stdout),
    end,
    async dispose() {
      await end();
      await rm(place, { recursive: true, force: true });
    },
  };
}

/** The processes of a line, to be looked for later. */
export function identities(processes: ReadyLine["processes"]): ProcessIdentity[] {
  return processes.map(({ pid }) => identify(pid)).filter((identity) => identity !== undefined);
}

/** Those that still run. */
export function stillRunning(all: readonly ProcessIdentity[]): number[] {
  return all.filter(isRunning).map(({ pid }) => pid);
}
