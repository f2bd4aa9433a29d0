/**
 * A real PgBouncer for tests, on a free port of loopback before a test server, with the configuration that `docs/operating/pgbouncer.md`
 * gives: only places and the size of its pool are put in.
 */
import { chown, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { freePorts } from "./support/free-ports.ts";
import { type SupervisedServer, startSupervisedServer } from "./support/supervised-server.ts";
import { superuser, unprivilegedAccount } from "./test-postgres.ts";

/** A running one. */
export interface TestPgbouncer extends SupervisedServer {
  readonly port: number;
  /** Its process. */
  pid(): Promise<number>;
  /** Its version, e.g. [1, 18]. */
  version(): Promise<readonly [number, number]>;
  /** The address of one of the server's databases through it. */
  urlOf(database: string): string;
  /** Connections it has to the server now. */
  serverConnections(): Promise<number>;
}

const documentation = new URL("../../../docs/operating/pgbouncer.md", import.meta.url);
const password = "of the tests";

/** Starts one before the server whose socket is in the folder `host`. */
export async function startTestPgbouncer(options: {
  readonly host: string;
  readonly port: number;
  /** Connections to the server for each of its databases; default: the documented number. */
  readonly poolSize?: number;
  /** In place of those documented, as in pgbouncer.ini. */
  readonly settings?: Readonly<Record<string, string>>;
}): Promise<TestPgbouncer> {
  const account = await unprivilegedAccount();
  const folder = await mkdtemp(join(tmpdir(), "rungs-pgbouncer-"));
  const { port } = await freePorts("port");
  const users = join(folder, "userlist.txt");
  const config = join(folder, "pgbouncer.ini");
  const own: Readonly<Record<string, string>> = {
    listen_port: String(port),
    pidfile: join(folder, "pid"),
    auth_file: users,
    admin_users: superuser,
    unix_socket_dir: "",
    ...(options.poolSize === undefined ? {} : { default_pool_size: String(options.poolSize) }),
    ...options.settings,
  };
  await writeFile(users, `"${superuser}" "${password}"\n`, { mode: 0o600 });
  await writeFile(config, configured(await documented(), { "*": `host=${options.host} port=${options.port}` }, own));
  if (account.uid !== undefined)
    await Promise.all([folder, users, config].map((path) => chown(path, account.uid, account.gid)));
  const asUser = account.uid === undefined ? [] : ["-u", "nobody"];
  const urlOf = (database: string) =>
    `postgres://${superuser}:${encodeURIComponent(password)}@127.0.0.1:${port}/${database}`;
  const show = async (what: string): Promise<Record<string, string>[]> => {
    const client = new pg.Client({ connectionString: urlOf("pgbouncer") });
    await client.connect();
    try {
      // Its console knows the simple protocol alone.
      return (await client.query(`show ${what}`)).rows;
    } finally {
      await client.end();
    }
  };
  const server = await startSupervisedServer({
    ...{ name: "PgBouncer", folder, readyWithinMs: 10_000 },
    command: ["pgbouncer", ...asUser, config],
    environment: { PATH: `${process.env["PATH"]}:/usr/sbin`, LC_ALL: "C", TZ: "UTC" },
    isReady: () => listens(port),
  });
  return {
    ...server,
    port,
    urlOf,
    pid: async () => Number(await readFile(join(folder, "pid"), "utf8")),
    async version() {
      const [row] = await show("version");
      const [, major, minor] = /(\d+)\.(\d+)/.exec(row?.["version"] ?? "") ?? [];
      return [Number(major), Number(minor)];
    },
    async serverConnections() {
      return (await show("servers")).length;
    },
  };
}

/** The configuration that operators are given. */
async function documented(): Promise<string> {
  const [, ini] = /```ini\n([\s\S]*?)```/.exec(await readFile(documentation, "utf8")) ?? [];
  if (ini === undefined) throw new Error("docs/operating/pgbouncer.md gives no configuration.");
  return ini;
}

/** With other databases, and these settings in place of those of their name. */
function configured(
  ini: string,
  databases: Readonly<Record<string, string>>,
  settings: Readonly<Record<string, string>>,
): string {
  const lines = ini.split("\n").filter((line) => !Object.keys(settings).includes(line.split("=")[0]?.trim() ?? ""));
  const general = lines.slice(lines.indexOf("[pgbouncer]"));
  const listed = (all: Readonly<Record<string, string>>) =>
    Object.entries(all).map(([name, value]) => `${name} = ${value}`);
  return ["[databases]", ...listed(databases), ...general, ...listed(settings), ""].join("\n");
}

function listens(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ port, host: "127.0.0.1" });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
  });
}
