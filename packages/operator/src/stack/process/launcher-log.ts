/** The launcher's own log, in `logs/launcher.log`. */
import { join } from "node:path";
import type { Logger } from "rungs";
import { LogFile } from "./log-file.ts";

const opened = new Map<string, Logger>();

/** The logger that writes into this folder; the same one each time, so that its bound holds. */
export function launcherLog(folder: string): Logger {
  const found = opened.get(folder);
  if (found !== undefined) return found;
  const file = new LogFile(join(folder, "launcher.log"));
  const write = (level: string) => (fields: object, message: string) => {
    file.write(`${JSON.stringify({ time: new Date().toISOString(), level, message, ...told(fields) })}\n`);
  };
  const log = { debug: () => {}, info: write("info"), warn: write("warn"), error: write("error") };
  opened.set(folder, log);
  return log;
}

function told(fields: object): object {
  return Object.fromEntries(
    Object.entries(fields).map(([key, value]) => [key, value instanceof Error ? value.message : value]),
  );
}
