/**
 * What the provider has acknowledged: lines of JSON, each written before the answer that depends on it goes out. A killed
 * process loses none of them, since what was written lies with the operating system.
 */
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, truncateSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";

export interface Journal {
  /** Records of earlier runs, oldest first. */
  readonly records: readonly unknown[];
  append(record: object): void;
  close(): void;
}

/** Opens the journal of a folder, or one that forgets when there is none. A last line cut short by a crash is dropped. */
export function openJournal(folder: string | undefined): Journal {
  if (folder === undefined) return { records: [], append: () => {}, close: () => {} };
  // The folder above may be shared with the databases, which run as another user.
  mkdirSync(dirname(folder), { recursive: true });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const path = join(folder, "journal.jsonl");
  const bytes = existsSync(path) ? readFileSync(path) : Buffer.alloc(0);
  const wholeBytes = bytes.lastIndexOf(0x0a) + 1;
  if (wholeBytes < bytes.length) truncateSync(path, wholeBytes);
  const lines = bytes.subarray(0, wholeBytes).toString("utf8").split("\n").slice(0, -1);
  const file = openSync(path, "a", 0o600);
  return {
    records: lines.map((line) => JSON.parse(line) as unknown),
    append(record) {
      writeSync(file, `${JSON.stringify(record)}\n`);
    },
    close: () => closeSync(file),
  };
}
