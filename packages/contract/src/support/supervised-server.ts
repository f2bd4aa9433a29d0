/**
 * A real server for tests that never outlives them, with a folder of its own.
 *
 * Its shell waits on a pipe that this process holds: when the pipe closes, by `stop()` or because this process ended in whatever way,
 * the server is killed and its folder removed.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { until } from "./until.ts";

/** A running server. */
export interface SupervisedServer {
  /** The end of what it has printed since its last start, for when a test fails. */
  log(): string;
  /** Kills it as a crash would, and waits for its end. */
  kill(): Promise<void>;
  /** Starts it again where it was, with what it had written. */
  restart(): Promise<void>;
  /** Stops its process in its tracks, or lets it go on. */
  freeze(isFrozen: boolean): void;
  /** Kills it for good and removes its folder. Safe to call twice. */
  stop(): Promise<void>;
}

/** How to start a server. */
export interface SupervisedServerOptions {
  /** What messages call it. */
  readonly name: string;
  /** Is there already; the server runs in it. */
  readonly folder: string;
  /** Program and arguments. After "setsid" all that it starts is killed with it. */
  readonly command: readonly string[];
  /** The whole of it; default: the path, and neutral words and times. */
  readonly environment?: Readonly<Record<string, string | undefined>>;
  /** Whether it answers; to raise is to say no. */
  isReady(): Promise<boolean>;
  readonly readyWithinMs: number;
}

const logCharactersMax = 200_000;

/**
 * `$1` is the server's folder, the rest its command. A line on the pipe kills the server only, its end removes the folder too. A
 * server that leads a session is killed with all of that.
 */
const supervisor = `
trap '' INT TERM HUP PIPE
folder="$1"; shift
"$@" 3<&- &
server=$!
echo "pid $server"
{ read -r _ <&3 || touch "$folder/gone"; kill -KILL -$server || kill -KILL $server; } 2>/dev/null &
watcher=$!
wait $server
status=$?
kill -KILL -$server 2>/dev/null
kill -KILL $watcher 2>/dev/null
[ -e "$folder/gone" ] && rm -rf "$folder"
exit $status
`;

/** Starts it and waits until it is ready. Raises an `Error` with the end of its log when it does not become so. */
export async function startSupervisedServer(options: SupervisedServerOptions): Promise<SupervisedServer> {
  const start = async () => {
    const started = await spawnServer(options);
    await whenReady(started, options);
    return started;
  };
  let server = await start();
  const end = async (isForGood: boolean) => {
    const { child, pipe } = server;
    if (hasEnded(child)) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.ref();
    if (isForGood) pipe.destroy();
    else pipe.write("kill\n");
    await ended;
    pipe.destroy();
  };
  return {
    log: () => server.log(),
    kill: () => end(false),
    async restart() {
      await end(false);
      server = await start();
    },
    freeze: (isFrozen) => void process.kill(server.pid, isFrozen ? "SIGSTOP" : "SIGCONT"),
    async stop() {
      await end(true);
      await rm(options.folder, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

interface Running {
  readonly child: ChildProcess;
  readonly pid: number;
  readonly pipe: Socket;
  log(): string;
}

async function spawnServer({ name, folder, command, environment }: SupervisedServerOptions): Promise<Running> {
  const child = spawn("sh", ["-c", supervisor, "sh", folder, ...command], {
    cwd: folder,
    env: environment ?? { PATH: process.env["PATH"], LC_ALL: "C", TZ: "UTC" },
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  let log = "";
  const pid = await new Promise<number>((resolve, reject) => {
    const read = (text: string) => {
      log = (log + text).slice(-logCharactersMax);
      const [, digits] = /^pid (\d+)$/m.exec(log) ?? [];
      if (digits !== undefined) resolve(Number(digits));
    };
    child.stdout?.setEncoding("utf8").on("data", read);
    child.stderr?.setEncoding("utf8").on("data", read);
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${name} ended with ${code}:\n${log}`)));
  });
  const pipe = child.stdio[3] as Socket;
  pipe.on("error", () => {});
  // A test that forgets to stop it must still be able to end; the pipe's end kills the server then.
  child.unref();
  for (const stream of [child.stdout, child.stderr, pipe]) (stream as Socket).unref();
  return { child, pid, pipe, log: () => log };
}

async function whenReady(server: Running, { name, isReady, readyWithinMs }: SupervisedServerOptions): Promise<void> {
  const { child, pipe, log } = server;
  try {
    await until(`the test ${name} answers`, async () => hasEnded(child) || (await isReady()), readyWithinMs);
    if (hasEnded(child)) throw new Error(`It ended with code ${child.exitCode}.`);
  } catch (error) {
    pipe.destroy();
    throw new Error(`The test ${name} did not start. Its log ends with:\n${log()}`, { cause: error });
  }
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}
