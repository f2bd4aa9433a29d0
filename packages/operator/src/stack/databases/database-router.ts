/** HAProxy between the app and the shards' servers, one for all shards. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { openPostgres } from "rungs/database/postgres";
import type { Component } from "../component.ts";
import { controlPath } from "../control/control-path.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { privateFolder, writePrivate } from "../process/secrets.ts";
import { appUser } from "./app-database.ts";
import { databaseRouterConfig, databaseRouterState, type RoutedShard } from "./database-router-config.ts";

export interface DatabaseRouterOptions {
  readonly program: string;
  /** Of the part and of its log; default "database-router". */
  readonly name?: string;
  /** Default none. */
  readonly region?: string | undefined;
  /** The folder of its stack, or of its region. */
  readonly folder: string;
  readonly logFolder: string;
  readonly needs: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly shards: readonly RoutedShard[];
  /** Password of the app's user, to see that every leader can be written to. */
  readonly appPassword: string;
}

const part = "database-router";

/** Makes the component; the files are written when it starts. Ready: each leader's port leads to a server that takes writes. */
export function databaseRouterComponent(options: DatabaseRouterOptions): Component {
  const { program, folder, logFolder, needs, environment, shards, appPassword, name = part, region } = options;
  const place = join(folder, part);
  const configFile = join(place, "haproxy.cfg");
  const state = join(place, "servers-at-start");
  const args = ["-W", "-db", "-f", configFile];
  const haproxy = new ManagedProcess({
    ...{ name, role: "router", command: program, args, folder, logFolder },
    environment: { PATH: environment["PATH"], LC_ALL: "C", TZ: environment["TZ"] },
    port: shards[0]?.leaderPort ?? null,
    probe: async () => {
      await Promise.all(shards.map(({ leaderPort }) => expectWritable(leaderPort, appPassword)));
    },
    stopTimeoutMs: 3_000,
  });
  return {
    name,
    role: "router",
    ...(region === undefined ? {} : { region }),
    needs,
    plan: [program, ...args].join(" "),
    async start(signal) {
      await mkdir(place, { recursive: true });
      await privateFolder(place);
      await writePrivate(state, databaseRouterState(shards));
      await writePrivate(configFile, databaseRouterConfig(shards, { socket: controlPath(place), state }));
      await haproxy.start(signal);
    },
    stop: () => haproxy.stop(),
    lose: () => haproxy.lose(),
    processes: () => haproxy.report(),
  };
}

/** Resolves when what this port of loopback leads to takes writes; raises when not. */
export async function expectWritable(port: number, password: string): Promise<void> {
  const database = openPostgres({
    name: part,
    address: { host: "127.0.0.1", port, user: appUser, database: appUser, password },
    pool: { connectionsMax: 1, acquireTimeoutMs: 2_000, statementTimeoutMs: 2_000 },
  });
  try {
    const [row] = await database.query<{ follows: boolean }>(undefined, "select pg_is_in_recovery() as follows", []);
    if (row?.follows !== false) throw new Error(`Port ${port} does not lead to a leader yet.`);
  } finally {
    await database.close();
  }
}
