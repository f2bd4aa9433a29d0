/** Making and reading the files of an embedded server: its data folder, password and log. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chown, open, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import type { EmbeddedHome } from "./embedded-postgres-home.ts";

const logBytesMax = 10 * 1024 * 1024;

/**
 * Makes the data folder unless it is there; gives whether it was made. Two starts at once make one: the loser of the
 * rename drops its own. Raises `DATA_DIRECTORY_INVALID` for data of another major version.
 */
export async function createCluster(home: EmbeddedHome, majorVersion: string, superuser: string): Promise<boolean> {
  const data = join(home.directory, "data");
  const version = await readFile(join(data, "PG_VERSION"), "utf8").catch(() => undefined);
  if (version !== undefined) {
    if (version.trim() !== majorVersion) throw otherVersion(data, version.trim(), majorVersion);
    await rotateLog(home);
    return false;
  }
  await writePassword(home);
  const staging = join(home.directory, `init-${randomBytes(6).toString("hex")}`);
  await initdb(home, staging, superuser);
  const isMine = await rename(staging, data).then(
    () => true,
    () => false,
  );
  if (!isMine) await rm(staging, { recursive: true, force: true });
  await removeLeftovers(home);
  return isMine;
}

/** The generated password of the superuser. */
export async function readPassword(home: EmbeddedHome): Promise<string> {
  return (await readFile(join(home.directory, "password"), "utf8")).trim();
}

/** The last lines of a file, for messages. */
export async function tailOf(path: string, lines: number): Promise<string> {
  const text = await readFile(path, "utf8").catch(() => "(no log)");
  return text.trimEnd().split("\n").slice(-lines).join("\n");
}

/** Written once; a second starter at the same moment reads the first one's. */
async function writePassword(home: EmbeddedHome): Promise<void> {
  const path = join(home.directory, "password");
  try {
    const file = await open(path, "wx", 0o600);
    await file.writeFile(`${randomBytes(24).toString("base64url")}\n`);
    await file.close();
    if (home.user !== undefined) await chown(path, home.user.uid, home.user.gid);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
}

async function initdb(home: EmbeddedHome, target: string, superuser: string): Promise<void> {
  // The C locale of UTF-8 sorts the same on every machine, whatever its system library; checksums find rotten disks.
  const flags = [
    "--encoding=UTF8",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    "--locale=C",
    "--data-checksums",
  ];
  const auth = ["--auth=scram-sha-256", `--pwfile=${join(home.directory, "password")}`, `--username=${superuser}`];
  const child = spawn(join(home.programs, "bin", "initdb"), ["-D", target, ...flags, ...auth, "--no-instructions"], {
    cwd: home.directory,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LC_ALL: "C" },
    ...(home.user ?? {}),
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => (output = `${output}${chunk}`.slice(-4_000)));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code === 0) return;
  await rm(target, { recursive: true, force: true });
  throw new UnavailableError(
    "DATABASE_START_FAILED",
    `initdb could not make a database in ${home.directory}:\n${output.trim()}`,
    { canRetry: false },
  );
}

/** Half-made folders of starts that were killed; those of the last ten minutes may belong to a start under way. */
async function removeLeftovers(home: EmbeddedHome): Promise<void> {
  for (const name of await readdir(home.directory)) {
    if (!name.startsWith("init-")) continue;
    const path = join(home.directory, name);
    const made = await stat(path).catch(() => undefined);
    if (made !== undefined && Date.now() - made.mtimeMs > 10 * 60 * 1_000)
      await rm(path, { recursive: true, force: true });
  }
}

async function rotateLog(home: EmbeddedHome): Promise<void> {
  const path = join(home.directory, "postgres.log");
  const size = await stat(path).then(
    (file) => file.size,
    () => 0,
  );
  if (size > logBytesMax) await rename(path, `${path}.1`);
}

function otherVersion(data: string, found: string, wanted: string): ConfigError {
  return new ConfigError(
    "DATA_DIRECTORY_INVALID",
    `The data in ${data} was made by PostgreSQL ${found}; this version of Rungs brings PostgreSQL ${wanted}. ` +
      `Move it with pg_dump of version ${found}, or start on another data directory (RUNGS_DIR).`,
  );
}
