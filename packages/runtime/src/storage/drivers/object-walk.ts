/** Walks the folder of the disk driver by key, in code point order, reading no folder that cannot hold what is wanted. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";

/** A file that is an object. */
export interface FoundObject {
  readonly key: string;
  readonly path: string;
}

/** Objects whose key begins with `prefix` and comes after `after`. Folders that go meanwhile are passed over. */
export async function* objectsBelow(
  root: string,
  wanted: { readonly prefix: string; readonly after: string },
): AsyncGenerator<FoundObject> {
  yield* walk(root, "", wanted);
}

async function* walk(
  folder: string,
  base: string,
  wanted: { readonly prefix: string; readonly after: string },
): AsyncGenerator<FoundObject> {
  const { prefix, after } = wanted;
  for (const { key, path, isFolder } of await entriesOf(folder, base)) {
    if (isFolder) {
      const mayHold = key.startsWith(prefix) || prefix.startsWith(key);
      // All keys below begin with this one: they come before `after` unless it is among them or smaller.
      if (mayHold && (after < key || after.startsWith(key))) yield* walk(path, key, wanted);
    } else if (key.startsWith(prefix) && key > after) yield { key, path };
  }
}

/** A folder's entries by what their keys are or begin with: `b` is an object, `b/` those below the folder `b+`. */
async function entriesOf(folder: string, base: string) {
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
  return entries
    .filter((entry) => (entry.isDirectory() ? entry.name.endsWith("+") : entry.isFile() && !entry.name.includes("+")))
    .map((entry) => ({
      key: base + (entry.isDirectory() ? `${entry.name.slice(0, -1)}/` : entry.name),
      path: join(folder, entry.name),
      isFolder: entry.isDirectory(),
    }))
    .sort((left, right) => (left.key < right.key ? -1 : 1));
}
