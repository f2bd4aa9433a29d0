/** PostgreSQL's programs on this machine: Debian keeps each major version in a folder of its own. */
import { type ExecFileSyncOptionsWithStringEncoding, execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** One major version. */
export interface PostgresPrograms {
  readonly bin: string;
  /** E.g. 15. */
  readonly version: number;
}

const debianBase = "/usr/lib/postgresql";
/** What Patroni calls. */
const needed = ["postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "pg_controldata"];
/** The lowest version that Rungs works with. */
const versionMin = 15;

/** The newest version; or, for data that is there already, the one that made it. Undefined: not installed. */
export function findPostgres(
  environment: Readonly<Record<string, string | undefined>>,
  dataFolder?: string,
): PostgresPrograms | undefined {
  const wanted = dataFolder === undefined ? undefined : versionOfData(dataFolder);
  return [...ofDebian(), ...ofPath(environment)]
    .filter(({ bin, version }) => version >= versionMin && needed.every((name) => existsSync(join(bin, name))))
    .filter(({ version }) => wanted === undefined || version === wanted)
    .sort((a, b) => b.version - a.version)[0];
}

/** The major version that made the data; undefined when there is none yet. */
export function versionOfData(dataFolder: string): number | undefined {
  try {
    return Number(readFileSync(join(dataFolder, "PG_VERSION"), "utf8"));
  } catch {
    return undefined;
  }
}

function ofDebian(): PostgresPrograms[] {
  try {
    return readdirSync(debianBase).map((name) => ({ bin: join(debianBase, name, "bin"), version: Number(name) }));
  } catch {
    return [];
  }
}

function ofPath({ PATH }: Readonly<Record<string, string | undefined>>): PostgresPrograms[] {
  try {
    const settings: ExecFileSyncOptionsWithStringEncoding = {
      encoding: "utf8",
      env: { PATH },
      stdio: ["ignore", "pipe", "ignore"],
    };
    const bin = execFileSync("pg_config", ["--bindir"], settings).trim();
    const version = Number(/\d+/.exec(execFileSync("pg_config", ["--version"], settings))?.[0]);
    return [{ bin, version }];
  } catch {
    return [];
  }
}
