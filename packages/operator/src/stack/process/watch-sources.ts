/** Tells when the files of an app change. */
import { type FSWatcher, watch } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";

const foldersMax = 4_000;
/** An editor writes a file in several steps, and a branch is switched in many. */
const quietMs = 120;
/** Folders that hold no sources: dependencies, what was built, data. Those with a dot at the start neither. */
const ignored = new Set(["node_modules", "dist", "build", "coverage"]);

/**
 * Calls `onChange` once things have been quiet for 120 ms after a change, with the file that changed first. Folders are watched one by one,
 * because a watch of a whole tree would include its dependencies.
 */
export async function watchSources(folder: string, onChange: (file: string) => void): Promise<{ close(): void }> {
  const watchers = new Map<string, FSWatcher>();
  let timer: NodeJS.Timeout | undefined;
  let first: string | undefined;
  let isClosed = false;
  const changed = (file: string) => {
    first ??= file;
    clearTimeout(timer);
    timer = setTimeout(() => {
      const told = first as string;
      first = undefined;
      onChange(told);
    }, quietMs);
  };
  const add = async (path: string): Promise<void> => {
    if (isClosed || watchers.has(path) || watchers.size >= foldersMax) return;
    try {
      const watcher = watch(path, (event, name) => {
        if (name === null || isIgnored(name)) return;
        changed(join(path, name));
        if (event === "rename") void add(join(path, name));
      });
      watchers.set(path, watcher);
      const forget = () => {
        watcher.close();
        watchers.delete(path);
      };
      watcher.on("error", forget);
    } catch {
      return; // No folder, or gone already.
    }
    const entries = await readdir(path, { withFileTypes: true }).catch(() => undefined);
    if (entries === undefined) {
      watchers.get(path)?.close();
      watchers.delete(path);
      return;
    }
    await Promise.all(
      entries
        .filter((entry) => entry.isDirectory() && !isIgnored(entry.name))
        .map((entry) => add(join(path, entry.name))),
    );
  };
  await add(folder);
  return {
    close() {
      isClosed = true;
      clearTimeout(timer);
      for (const watcher of watchers.values()) watcher.close();
    },
  };
}

function isIgnored(name: string): boolean {
  return name.startsWith(".") || name.endsWith("~") || ignored.has(name);
}
