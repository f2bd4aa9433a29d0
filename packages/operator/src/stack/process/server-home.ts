/** Where servers that refuse to run as root have their files, and which user runs them. */
import { createHash } from "node:crypto";
import { chmod, chown, mkdir, readFile, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { isOpen } from "../front/nginx.ts";

/** An unprivileged user by number. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** A place for servers and who runs there. */
export interface ServerHome {
  readonly folder: string;
  /** Undefined: whoever runs the launcher, because that is not root. */
  readonly user: ServerUser | undefined;
}

const closedHomeBase = "/var/lib/rungs";

/**
 * The folder `name` of a stack. Started by root, it belongs to the system's postgres user, else to nobody; where that user cannot pass
 * through the stack's folder it lies in /var/lib/rungs, and a link leads there.
 */
export async function serverHome(stackFolder: string, name: string): Promise<ServerHome> {
  const place = join(stackFolder, name);
  if (process.getuid?.() !== 0) return { folder: await ownedFolder(place, undefined), user: undefined };
  if (await isOpen(stackFolder)) {
    const user = await serverUser(place);
    return { folder: await ownedFolder(place, user), user };
  }
  const hash = createHash("sha256").update(stackFolder).digest("hex").slice(0, 16);
  await mkdir(closedHomeBase, { recursive: true, mode: 0o755 });
  const elsewhere = join(closedHomeBase, `${name}-${hash}`);
  const user = await serverUser(elsewhere);
  await symlink(elsewhere, place).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "EEXIST") throw error;
  });
  return { folder: await ownedFolder(elsewhere, user), user };
}

/** Makes a folder that only this user can enter. */
export async function ownedFolder(path: string, user: ServerUser | undefined): Promise<string> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  if (user !== undefined) await chown(path, user.uid, user.gid);
  await chmod(path, 0o700);
  return path;
}

/** Who owns the folder already; else the system's postgres user, else nobody. */
async function serverUser(place: string): Promise<ServerUser> {
  const owner = await stat(place).catch(() => undefined);
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const accounts = (await readFile("/etc/passwd", "utf8").catch(() => "")).split("\n").map((line) => line.split(":"));
  for (const name of ["postgres", "nobody"]) {
    const fields = accounts.find(([account]) => account === name);
    if (fields !== undefined) return { uid: Number(fields[2]), gid: Number(fields[3]) };
  }
  return { uid: 65_534, gid: 65_534 };
}
