/** Which process a number means: numbers are given out again, so one alone is never signalled. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** A process as it is written down, to be recognised later. */
export interface ProcessIdentity {
  readonly pid: number;
  /** When it started, in the system's own words (clock ticks since boot, or a date); compared, never computed with. */
  readonly startedAt: string;
}

/** The process of this number; undefined when there is none, or when it is dead and merely not reaped yet. */
export function identify(pid: number): ProcessIdentity | undefined {
  if (!Number.isInteger(pid) || pid <= 1) return undefined;
  const startedAt = process.platform === "linux" ? startOnLinux(pid) : startElsewhere(pid);
  return startedAt === undefined ? undefined : { pid, startedAt };
}

/** Whether that very process still runs. */
export function isRunning(identity: ProcessIdentity): boolean {
  return identify(identity.pid)?.startedAt === identity.startedAt;
}

/** Signals that very process, or its whole group; false when it is gone. */
export function signalProcess(
  identity: ProcessIdentity,
  signal: NodeJS.Signals,
  options: { readonly isGroup?: boolean } = {},
): boolean {
  if (!isRunning(identity)) return false;
  try {
    return process.kill(options.isGroup === true ? -identity.pid : identity.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return false;
    throw error;
  }
}

/** Fields 3 and 22 of /proc/PID/stat, behind the name, which may hold spaces and brackets (proc(5)). */
function startOnLinux(pid: number): string | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").pop()?.split(" ") ?? [];
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

function startElsewhere(pid: number): string | undefined {
  try {
    const line = execFileSync("ps", ["-o", "stat=,lstart=", "-p", String(pid)], { encoding: "utf8" }).trim();
    return line === "" || line.startsWith("Z") ? undefined : line.replace(/^\S+\s+/, "");
  } catch {
    return undefined;
  }
}
