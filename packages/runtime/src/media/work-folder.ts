/** Temporary folders of media work: one for each call, removed by its owner, and by age when the owner was killed. */
import { mkdir, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Clock } from "../kernel/clock.ts";

const prefix = "rungs-media-";
/** Longer than any call may take; what is older belongs to a process that was killed. */
const staleMs = 24 * 60 * 60_000;
const sweepMax = 1_000;

/** A folder of one call. */
export interface WorkFolder {
  readonly path: string;
  /** Deletes it with all that is in it; a second call does nothing. */
  remove(): Promise<void>;
}

/** Makes folders under one parent, by default the system's folder for temporary files. */
export interface WorkFolders {
  make(): Promise<WorkFolder>;
}

/** Folders under `directory`; the first use deletes, there, up to 1,000 of ours that are older than a day. */
export function createWorkFolders(clock: Clock, directory: string = tmpdir()): WorkFolders {
  const parent = resolve(directory);
  let swept: Promise<void> | undefined;
  return {
    async make() {
      await mkdir(parent, { recursive: true });
      swept ??= removeStale(parent, clock.now() - staleMs);
      await swept;
      const path = await mkdtemp(join(parent, prefix));
      return { path, remove: () => rm(path, { recursive: true, force: true, maxRetries: 3 }) };
    },
  };
}

async function removeStale(parent: string, before: number): Promise<void> {
  const names = await readdir(parent);
  for (const name of names.filter((each) => each.startsWith(prefix)).slice(0, sweepMax)) {
    const path = join(parent, name);
    // Another process may sweep too, or the folder may be someone else's: neither is our trouble.
    const found = await stat(path).catch(() => undefined);
    if (found !== undefined && found.mtimeMs < before) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}
