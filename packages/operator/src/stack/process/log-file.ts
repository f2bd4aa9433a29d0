/** The log of one process: a file that is kept within a bound. */
import { appendFileSync, renameSync, statSync } from "node:fs";

/** A file grows to this; then it becomes `NAME.1`, in place of the one before. So a process's logs take twice this. */
export const logBytesMax = 10 * 1024 * 1024;
const tailCharacters = 4_000;

/** Appends what a process writes, line by line. */
export class LogFile {
  readonly path: string;
  private readonly bytesMax: number;
  private readonly keep: (line: string) => boolean;
  private bytes: number;
  private rest = "";
  private recent = "";

  /** `keep` says which lines are worth keeping; default all. */
  constructor(path: string, options: { readonly bytesMax?: number; readonly keep?: (line: string) => boolean } = {}) {
    this.path = path;
    this.bytesMax = options.bytesMax ?? logBytesMax;
    this.keep = options.keep ?? (() => true);
    this.bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  }

  /** Takes what came out of the process, whole lines or not. A line over 64 KiB is cut in two. */
  write(text: string): void {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop() ?? "";
    if (this.rest.length > 65_536) {
      lines.push(this.rest);
      this.rest = "";
    }
    const kept = lines.filter((line) => line !== "" && this.keep(line));
    if (kept.length > 0) this.append(`${kept.join("\n")}\n`);
  }

  /** A line of the launcher's own, marked with the time. */
  note(text: string): void {
    this.append(`--- ${new Date().toISOString()} ${text}\n`);
  }

  /** The last lines since this start, for messages. */
  tail(lines: number): string {
    return `${this.recent}${this.rest}`.trimEnd().split("\n").slice(-lines).join("\n");
  }

  private append(text: string): void {
    this.recent = (this.recent + text).slice(-tailCharacters);
    try {
      if (this.bytes + text.length > this.bytesMax) {
        renameSync(this.path, `${this.path}.1`);
        this.bytes = 0;
      }
      appendFileSync(this.path, text, { mode: 0o600 });
      this.bytes += Buffer.byteLength(text);
    } catch {
      // A full disk must not end the launcher, which keeps everything else alive.
    }
  }
}
