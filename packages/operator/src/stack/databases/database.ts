/** The embedded PostgreSQL servers of a stack: held by the launcher, one a shard. */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import type { Logger } from "rungs";
import { type EmbeddedPostgres, startEmbeddedPostgres } from "rungs/database/embedded";
import type { Component } from "../component.ts";

export interface DatabaseOptions {
  readonly shard: number;
  /** The group whose services own the database; default: it is the app's. */
  readonly group?: string;
  /** The stack's folder. */
  readonly folder: string;
  /** Connections the server takes; it must be more than those of all web processes together. */
  readonly connectionsMax: number;
  /** The app's address, for the message to somebody who starts the app on the same data. */
  readonly address: string;
  readonly log: Logger;
}

/** A component with the address of its database. */
export interface DatabaseComponent extends Component {
  /** Address with the password, for the environment of web processes; once it has started. */
  url(): string;
}

/**
 * Waits on a pipe that the launcher holds, and has the server shut down when the launcher was killed. The pid is read then, because a
 * crashed server comes back under another one.
 */
const guard = `
read -r _ <&3
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) || exit 0
case "$(ps -o args= -p "$pid" 2>/dev/null)" in *postgres*) kill -INT "$pid" ;; esac
`;

/** Makes the component. */
export function databaseComponent(options: DatabaseOptions): DatabaseComponent {
  const { shard, group, folder, connectionsMax, address, log } = options;
  const of = group === undefined ? "" : `${group}-`;
  const directory = join(folder, "database", `${of}shard-${shard}`);
  const name = `${of}database-${shard}`;
  let server: EmbeddedPostgres | undefined;
  let watcher: ChildProcess | undefined;
  let startedAtMs = 0;
  return {
    name,
    role: "database",
    needs: [],
    plan: `PostgreSQL, embedded, in ${directory}`,
    async start() {
      startedAtMs = Date.now();
      server = await startEmbeddedPostgres({
        directory,
        log,
        settings: { max_connections: String(connectionsMax) },
      });
      watcher = spawn("/bin/sh", ["-c", guard, "rungs", server.directory], {
        detached: true,
        stdio: ["ignore", "ignore", "ignore", "pipe"],
      });
      watcher.on("error", (error) => log.warn({ error }, "the database has no guard against a killed launcher"));
      watcher.stdio[3]?.on("error", () => {});
      await server.announce({ address });
    },
    async stop() {
      watcher?.kill("SIGKILL");
      await server?.stop();
      server = undefined;
    },
    processes: () =>
      server === undefined || server.pid === 0
        ? []
        : [{ name, role: "database", pid: server.pid, port: null, state: "ready", crashes: 0, startedAtMs }],
    url() {
      if (server === undefined) throw new Error(`${name} has not started.`);
      const { host, port, user, password, database } = server.connection;
      return `postgres://${user}:${encodeURIComponent(password)}@/${database}?host=${encodeURIComponent(host)}&port=${port}`;
    },
  };
}
