/** Where an app's databases are, for tools beside it. */
import { access } from "node:fs/promises";
import { join, resolve } from "node:path";
import { embeddedConnection } from "../../database/drivers/embedded-postgres.ts";
import type { PostgresAddress } from "../../database/drivers/postgres.ts";
import { UnavailableError } from "../../kernel/errors.ts";
import { type Environment, Secret, type Topology, topologyOfDatabase } from "../../topology/index.ts";

/**
 * Addresses of the shards' leaders: servers, or the embedded databases that a running app holds. `group`: of the database that its
 * services own; default: the app's. Raises `DATABASE_UNREACHABLE`
 * when an embedded one does not run, and `SECRET_MISSING`.
 */
export async function leaderAddresses(
  topology: Topology,
  environment: Environment,
  group?: string | undefined,
): Promise<PostgresAddress[]> {
  const { shards } = topologyOfDatabase(topology, group).database;
  if (typeof shards !== "number") {
    return shards.map(({ leader }) => ({ url: leader instanceof Secret ? leader.reveal(environment) : leader }));
  }
  const addresses: PostgresAddress[] = [];
  for (let index = 0; index < shards; index++) {
    const folder = `${group === undefined ? "" : `${group}-`}shard-${index}`;
    addresses.push(await embeddedAddress(join(resolve(topology.dataDirectory), "database", folder)));
  }
  return addresses;
}

async function embeddedAddress(folder: string): Promise<PostgresAddress> {
  // Asked first, because looking for a connection makes the folder.
  const isThere = await access(folder).then(
    () => true,
    () => false,
  );
  const address = isThere ? await embeddedConnection(folder) : undefined;
  if (address !== undefined) return address;
  throw new UnavailableError(
    "DATABASE_UNREACHABLE",
    isThere
      ? `The embedded database in ${folder} does not run. It runs with its app: start the app (npm start) and try again.`
      : `There is no database in ${folder}. Name the app's data folder with --dir or RUNGS_DIR and its number of shards, or start the app (npm start) and try again.`,
    { canRetry: true },
  );
}
