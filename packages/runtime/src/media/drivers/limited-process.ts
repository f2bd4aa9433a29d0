/**
 * One program at a time under limits, in a process group of its own that cannot outlive this process.
 *
 * The chain: Node -> `setpriv` (Linux) -> `/bin/sh`, which sets the limits and starts a watcher -> `nice`, `unshare`,
 * `setpriv` where there are -> the program.
 *
 * - *Limits* are the system's own (setrlimit(2)): processor time, address space, size of files, no core file. One that the
 *   system refuses is left out: macOS knows no limit on address space.
 * - *The watcher* is a second shell that reads a pipe from this process, on which nothing is ever written. It ends when
 *   this process does, however it does, and then the watcher kills the group. On Linux `setpriv --pdeathsig` does the same
 *   once more, link by link, without needing the watcher alive.
 * - *The shell stays* until the program has ended, to reap it and the watcher: in a container without an init nobody
 *   else would.
 * - *Abort and time limit* kill the whole group.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { access, constants as fileConstants, stat } from "node:fs/promises";
import { constants } from "node:os";
import { promisify } from "node:util";

/** What one run of a program may take. */
export interface ProcessLimits {
  readonly timeLimitMs: number;
  readonly cpuMsMax: number;
  readonly memoryBytesMax: number;
  /** Of each file it writes. */
  readonly fileBytesMax: number;
  /** Of all it says on its output. */
  readonly outputBytesMax: number;
}

/** A program to run. */
export interface LimitedProgram {
  /** Absolute path. */
  readonly path: string;
  readonly args: readonly string[];
  /** Folder it runs in. */
  readonly directory: string;
  readonly limits: ProcessLimits;
  readonly helpers: Helpers;
  readonly signal: AbortSignal | undefined;
  /** Hears its output as it comes. */
  readonly onOutput: (text: string) => void;
}

/** How a program ended. */
export interface ProcessEnd {
  /** What ended it; "killed" is a signal that was not ours. */
  readonly reason: "exited" | "time-limit" | "cpu-limit" | "file-limit" | "output-limit" | "killed";
  /** Undefined when a signal ended it. */
  readonly exitCode: number | undefined;
  /** The last 4,096 characters of what it complained about. */
  readonly complaint: string;
}

/** Absolute paths and arguments of the helpers this system has; each is an extra. */
export interface Helpers {
  /** `nice -n 10`. */
  readonly nice: readonly string[];
  /** `unshare` into a network without a single interface up; needs root or user namespaces. */
  readonly noNetwork: readonly string[];
  /** `setpriv`: no new privileges, and killed with its parent. */
  readonly tied: readonly string[];
}

const shell = "/bin/sh";
const complaintLengthMax = 4_096;
/** After SIGXCPU at the limit a program has these seconds to end itself before SIGKILL. */
const cpuGraceSeconds = 5;
/**
 * The kernel holds the limit by counting ticks, and `times` tells time measured: on a busy machine 0.93 s was told for a
 * limit of 1 s. So much of the limit counts as used up.
 */
const cpuShareMin = 0.5;
/** ffmpeg's exit code when a signal that it catches made it end. */
const interrupted = 255;

/**
 * Arguments: soft and hard seconds, address space in KiB, file size in blocks of 512 bytes (POSIX, ulimit), the program.
 * Descriptor 3 is the watcher's pipe, which the program does not inherit; a background command's input is /dev/null.
 * After a failure the processor time used is said last, on the error output: a program that catches SIGXCPU, as ffmpeg
 * does, ends just as it would for a SIGTERM from someone else.
 */
const script = `
exec 3<&0 </dev/null
ulimit -c 0 2>/dev/null
ulimit -S -t "$1" 2>/dev/null
ulimit -H -t "$2" 2>/dev/null
ulimit -v "$3" 2>/dev/null
ulimit -f "$4" 2>/dev/null
shift 4
( read -r _ <&3; kill -KILL 0 ) >/dev/null 2>&1 &
watcher=$!
exec 3<&-
"$@"
status=$?
[ "$status" = 0 ] || times >&2
kill -KILL "$watcher" 2>/dev/null
wait "$watcher" 2>/dev/null
exit "$status"
`;

/**
 * Runs a program to its end. Raises the signal's reason after an abort, when the group has been killed; what `onOutput`
 * raises, likewise; and what the system raises when nothing can be started.
 */
export async function runLimited(program: LimitedProgram): Promise<ProcessEnd> {
  const { signal, limits } = program;
  signal?.throwIfAborted();
  const child = start(program);
  const ended = endOf(child);
  let stopped: { readonly reason: "time-limit" | "output-limit" } | { readonly error: unknown } | undefined;
  const stop = (why: NonNullable<typeof stopped>) => {
    stopped ??= why;
    killGroup(child.pid);
  };
  const onAbort = () => stop({ error: signal?.reason });
  const timer = setTimeout(() => stop({ reason: "time-limit" }), limits.timeLimitMs);
  signal?.addEventListener("abort", onAbort, { once: true });
  let outputLength = 0;
  let complaint = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    outputLength += text.length;
    if (outputLength > limits.outputBytesMax) stop({ reason: "output-limit" });
    if (stopped !== undefined) return;
    try {
      program.onOutput(text);
    } catch (error) {
      stop({ error });
    }
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-complaintLengthMax);
  });
  try {
    const { code, killedBy } = await ended;
    if (stopped !== undefined && "error" in stopped) throw stopped.error;
    const [words, cpuMs] = splitTimes(complaint);
    const isCpuUsedUp = cpuMs >= cpuShareMin * softSeconds(limits) * 1_000;
    return {
      reason: stopped?.reason ?? reasonOf(code, killedBy, isCpuUsedUp),
      exitCode: code ?? undefined,
      complaint: words,
    };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

function start({ path, args, directory, helpers, limits }: LimitedProgram): ChildProcess {
  const { nice, noNetwork, tied } = helpers;
  const [command = shell, ...rest] = [...tied, shell, "-c", script, "rungs-media", ...limitArguments(limits)];
  return spawn(command, [...rest, ...nice, ...noNetwork, ...tied, path, ...args], {
    cwd: directory,
    env: {},
    stdio: ["pipe", "pipe", "pipe"],
    detached: true,
  });
}

function endOf(child: ChildProcess): Promise<{ code: number | null; killedBy: NodeJS.Signals | null }> {
  // Without open files left for them the pipes are missing, and the failure is told by an event.
  child.stdin?.on("error", () => {});
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("exit", (_code, killedBy) => {
      // Somebody killed the shell alone: what it had started must not go on, nor hold our pipes open.
      if (killedBy !== null) killGroup(child.pid);
    });
    child.on("close", (code, killedBy) => resolve({ code, killedBy }));
  });
}

/** Tries which helpers work here; takes some 20 ms. `withoutNetwork` false leaves `unshare` out. */
export async function findHelpers({ withoutNetwork }: { readonly withoutNetwork: boolean }): Promise<Helpers> {
  const nice = await firstWorking("nice", [["-n", "10"]]);
  const tied = await firstWorking("setpriv", [["--no-new-privs", "--pdeathsig", "KILL"]]);
  // As root alone; else with a user namespace, which some systems forbid.
  const noNetwork = withoutNetwork ? await firstWorking("unshare", [["-n"], ["-r", "-n"]]) : [];
  return { nice, tied, noNetwork };
}

async function firstWorking(name: string, choices: readonly (readonly string[])[]): Promise<readonly string[]> {
  for (const folder of ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]) {
    const path = `${folder}/${name}`;
    if (!(await isRunnable(path))) continue;
    for (const options of choices) {
      const tried = promisify(execFile)(path, [...options, shell, "-c", "exit 0"], { env: {}, timeout: 5_000 });
      if (
        await tried.then(
          () => true,
          () => false,
        )
      )
        return [path, ...options];
    }
  }
  return [];
}

/** Whether there is a program that this user may run. */
export async function isRunnable(path: string): Promise<boolean> {
  try {
    await access(path, fileConstants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

function limitArguments(limits: ProcessLimits): string[] {
  const seconds = softSeconds(limits);
  const { memoryBytesMax, fileBytesMax } = limits;
  const whole = [seconds, seconds + cpuGraceSeconds, Math.floor(memoryBytesMax / 1_024), Math.ceil(fileBytesMax / 512)];
  return whole.map(String);
}

function softSeconds({ cpuMsMax }: ProcessLimits): number {
  return Math.max(1, Math.ceil(cpuMsMax / 1_000));
}

/** The shell says 128 + the signal's number for a program that a signal ended. */
function reasonOf(code: number | null, killedBy: NodeJS.Signals | null, isCpuUsedUp: boolean): ProcessEnd["reason"] {
  const signalled = (name: keyof typeof constants.signals) => code === 128 + constants.signals[name];
  if (signalled("SIGXCPU")) return "cpu-limit";
  if (isCpuUsedUp && (signalled("SIGKILL") || code === interrupted)) return "cpu-limit";
  if (signalled("SIGXFSZ")) return "file-limit";
  if (killedBy !== null || code === interrupted || signalled("SIGKILL") || signalled("SIGTERM")) return "killed";
  return "exited";
}

/** Takes the two lines of `times` (POSIX) off the end; gives the rest, and the program's user and system time in ms. */
function splitTimes(complaint: string): readonly [words: string, cpuMs: number] {
  const one = "(\\d+)m([\\d.]+)s";
  const match = new RegExp(`\\S+ \\S+\\n${one} ${one}\\s*$`).exec(complaint);
  if (match === null) return [complaint, 0];
  const [userMinutes = 0, userSeconds = 0, minutes = 0, seconds = 0] = match.slice(1).map(Number);
  return [complaint.slice(0, match.index), 1_000 * (60 * (userMinutes + minutes) + userSeconds + seconds)];
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Gone already.
  }
}
