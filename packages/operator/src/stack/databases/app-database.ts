/** The app's own user and database on a new cluster. */
import { createHash, createHmac, pbkdf2Sync, randomBytes } from "node:crypto";
import { createHistoryFunction } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";
import { clusterUsers, type PatroniCluster, type PatroniMember } from "./patroni-config.ts";

/** Name of the app's user and of its database. */
export const appUser = "app";

/** PostgreSQL's own count. */
const iterations = 4096;

/**
 * Makes them where they are missing. The user owns its database and may see how the servers do, such as what a follower has received; it
 * may not change servers, read the machine's files or make users.
 */
export async function prepareAppDatabase(options: {
  readonly cluster: PatroniCluster;
  readonly leader: PatroniMember;
  readonly password: string;
}): Promise<void> {
  const { cluster, leader, password } = options;
  if (await canSignIn(leader, password)) return;
  const asSuperuser = async (database: string, work: (run: Run) => Promise<void>) => {
    const connection = openPostgres({
      name: leader.name,
      address: {
        ...{ host: "127.0.0.1", port: leader.postgresPort, database },
        ...{ user: clusterUsers.superuser, password: cluster.passwords.superuser },
      },
      pool: { connectionsMax: 1, acquireTimeoutMs: 5_000, statementTimeoutMs: 60_000 },
    });
    await work((sql, values = []) => connection.query(undefined, sql, values)).finally(() => connection.close());
  };
  await asSuperuser("postgres", async (run) => {
    const isThere = (await run("select 1 from pg_roles where rolname = $1", [appUser])).length > 0;
    // As PostgreSQL keeps it, so that the password itself is in no statement and no log.
    await run(`${isThere ? "alter" : "create"} role ${appUser} login password '${scramVerifier(password)}'`);
    await run(`grant pg_monitor to ${appUser}`);
    if ((await run("select 1 from pg_database where datname = $1", [appUser])).length > 0) return;
    await run(`create database ${appUser} owner ${appUser}`);
  });
  // Where a timeline ended, by which the app tells what a fail-over lost.
  await asSuperuser(appUser, async (run) => {
    await run(createHistoryFunction);
    await run(`grant execute on function rungs_timeline_history(int) to ${appUser}`);
  });
}

type Run = (sql: string, values?: unknown[]) => Promise<unknown[]>;

async function canSignIn({ name, postgresPort }: PatroniMember, password: string): Promise<boolean> {
  const database = openPostgres({
    name,
    address: { host: "127.0.0.1", port: postgresPort, user: appUser, database: appUser, password },
    pool: { connectionsMax: 1, acquireTimeoutMs: 5_000 },
  });
  try {
    await database.query(undefined, "select 1", []);
    return true;
  } catch {
    return false;
  } finally {
    await database.close();
  }
}

/** RFC 5803, in PostgreSQL's notation. The password is ASCII, so there is nothing to normalise. */
export function scramVerifier(password: string, salt: Buffer = randomBytes(16)): string {
  const salted = pbkdf2Sync(password, salt, iterations, 32, "sha256");
  const hmac = (text: string) => createHmac("sha256", salted).update(text).digest();
  const stored = createHash("sha256").update(hmac("Client Key")).digest("base64");
  return `SCRAM-SHA-256$${iterations}:${salt.toString("base64")}$${stored}:${hmac("Server Key").toString("base64")}`;
}
