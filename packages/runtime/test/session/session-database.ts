/** The sessions table on a real PostgreSQL, for the tests of this folder. */
import { startTestPostgres } from "@rungs/contract/test-postgres";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import { migrate } from "../../src/database/migrate.ts";
import {
  databaseSessionStore,
  type SqlDatabase,
  sessionMigrations,
} from "../../src/session/drivers/database-session-store.ts";

/** Starts a server, makes the table the way an app does, and opens the store over it. */
export async function openSessionDatabase() {
  const server = await startTestPostgres();
  const home = openPostgres({ name: "home", address: { url: server.connectionString }, pool: { connectionsMax: 8 } });
  await migrate({
    db: home.kysely,
    name: "home",
    service: "rungs_sessions",
    target: "home",
    migrations: sessionMigrations,
  });
  const queries: string[] = [];
  const database: SqlDatabase = {
    query(name, sql, values) {
      queries.push(name ?? sql);
      return home.query(name, sql, values);
    },
  };
  return {
    home,
    /** Names of the statements sent through `store`, in order. */
    queries,
    store: databaseSessionStore({ database }),
    async dump() {
      const rows = await home.query<{ row: string }>(undefined, "select s::text as row from rungs_sessions s", []);
      return rows.map(({ row }) => row).join("\n");
    },
    stopServer: () => server.stop(),
    async close() {
      await home.close();
      await server.stop();
    },
  };
}
