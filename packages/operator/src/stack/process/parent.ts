/** Notices the death of npm, which forwards signals but cannot forward its own kill -9. */
import { readFileSync } from "node:fs";

const everyMs = 1_000;

/**
 * Calls `onGone` when a parent up to npm has ended. Watches only under npm or npx: a program started in the background by a shell
 * rightly outlives it.
 */
export function watchParent(
  environment: Readonly<Record<string, string | undefined>>,
  onGone: () => void,
): { stop(): void } {
  if (environment["npm_command"] === undefined) return { stop() {} };
  const before = ancestors();
  const timer = setInterval(() => {
    if (ancestors() !== before) onGone();
  }, everyMs).unref();
  return { stop: () => clearInterval(timer) };
}

/** This process's parents, as far as four up: npm, its shell, the bin on an older Node. Stops at the first that is no part of npm. */
function ancestors(): string {
  const found: number[] = [];
  let pid = process.ppid;
  for (let steps = 0; steps < 4 && pid > 1; steps++) {
    found.push(pid);
    if (isNpm(pid)) break;
    pid = parentOf(pid);
  }
  return found.join(" ");
}

function isNpm(pid: number): boolean {
  try {
    return /\b(npm|npx)\b/.test(readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").slice(0, 300));
  } catch {
    return true;
  }
}

function parentOf(pid: number): number {
  try {
    return Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ").pop()?.split(" ")[1] ?? 0);
  } catch {
    return 0;
  }
}
