/** Keeps a file bounded that another process appends to. */
import { copyFile, stat, truncate } from "node:fs/promises";
import { logBytesMax } from "./log-file.ts";

const everyMs = 5_000;

/**
 * Every 5 s: when the file is over the bound, it is copied to `NAME.1` and emptied. The writer appends (O_APPEND), so it goes on at the
 * start; lines written during the copy are lost.
 */
export function keepBounded(path: string, bytesMax = logBytesMax): { stop(): void } {
  const look = async () => {
    const found = await stat(path).catch(() => undefined);
    if (found === undefined || found.size <= bytesMax) return;
    await copyFile(path, `${path}.1`);
    await truncate(path, 0);
  };
  // A full disk must not end the launcher.
  const timer = setInterval(() => void look().catch(() => {}), everyMs).unref();
  return { stop: () => clearInterval(timer) };
}
