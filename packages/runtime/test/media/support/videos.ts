/** Makes videos to try things on, with the system's own ffmpeg, and looks at what came of them. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type Ffmpeg, findFfmpeg } from "../../../src/media/drivers/find-ffmpeg.ts";

const execute = promisify(execFile);

/** The programs, or undefined on a machine without them. */
export const tools: Ffmpeg | undefined = await findFfmpeg().catch(() => undefined);

/** For the title of tests that need them. */
export const reason = tools === undefined ? " [not run: no ffmpeg found; install it or set RUNGS_FFMPEG]" : "";

/** Runs ffmpeg without any of our limits. */
export async function ffmpeg(...args: string[]): Promise<void> {
  await execute((tools as Ffmpeg).ffmpegPath, ["-nostdin", "-v", "error", "-y", "-threads", "1", ...args]);
}

/** A test picture with a tone (440 Hz), or silent. */
export function source(size: string, seconds: number, tone = true): string[] {
  const picture = ["-f", "lavfi", "-i", `testsrc=size=${size}:rate=25:duration=${seconds}`];
  return tone ? [...picture, "-f", "lavfi", "-i", `sine=frequency=440:duration=${seconds}`] : picture;
}

/** What ffprobe says of a file, whole. */
export async function inspect(
  path: string,
): Promise<{ streams: Record<string, unknown>[]; format: Record<string, unknown> }> {
  const args = ["-v", "error", "-show_streams", "-show_format", "-of", "json", path];
  return JSON.parse((await execute((tools as Ffmpeg).ffprobePath, args)).stdout);
}

/** A living process. */
export interface LivingProcess {
  readonly pid: number;
  readonly parent: number;
  readonly line: string;
}

/** Living processes whose command line mentions `text`; this one and zombies do not count. */
export async function processesWith(text: string): Promise<LivingProcess[]> {
  const { stdout } = await execute("ps", ["-A", "-ww", "-o", "pid=,ppid=,stat=,args="], {
    maxBuffer: 64 * 1024 * 1024,
  });
  const found = stdout.split("\n").map((row) => /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(row));
  return found
    .filter((match) => match !== null)
    .map(([, pid, parent, state = "", line = ""]) => ({ pid: Number(pid), parent: Number(parent), state, line }))
    .filter(({ pid, state, line }) => pid !== process.pid && !state.startsWith("Z") && line.includes(text));
}

/** Waits until `isTrue` gives true; raises after `timeoutMs`. */
export async function eventually(what: string, isTrue: () => Promise<boolean>, timeoutMs = 8_000): Promise<void> {
  const deadline = performance.now() + timeoutMs;
  while (!(await isTrue())) {
    if (performance.now() > deadline) throw new Error(`Not within ${timeoutMs} ms: ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
