/** Secrets of the servers that the launcher starts: random, readable by their owner only, the same on the next start. */
import { randomBytes } from "node:crypto";
import { chmod, mkdir, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";

/** The secret of this name in `<folder>/<name>`; made when missing. 32 random bytes as base64url. */
export async function generatedSecret(folder: string, name: string): Promise<string> {
  const path = join(folder, name);
  const found = await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return "";
    throw error;
  });
  if (found.trim() !== "") return found.trim();
  const secret = randomBytes(32).toString("base64url");
  await writePrivate(path, `${secret}\n`);
  return secret;
}

/** Writes a file that only its owner can read, whole or not at all. The owner is this process's user if no other is named. */
export async function writePrivate(
  path: string,
  content: string,
  owner?: { readonly uid: number; readonly gid: number },
): Promise<void> {
  const beside = `${path}.${randomBytes(4).toString("hex")}.new`;
  const file = await open(beside, "wx", 0o600);
  try {
    await file.writeFile(content);
    // By its handle: in a folder of another user a name may have come to mean something else.
    if (owner !== undefined) await file.chown(owner.uid, owner.gid);
  } finally {
    await file.close();
  }
  await rename(beside, path);
}

/** Makes a folder that only its owner can enter, also where it was there with other rights. */
export async function privateFolder(path: string): Promise<string> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  await chmod(path, 0o700);
  return path;
}
