/** Where the app's databases are: those of the stack that runs in the folder, else those that flags and settings name. */
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Environment, env, type Topology } from "rungs/topology";
import type { CommandContext, Values } from "../../command.ts";
import { askStatus } from "../../stack/control-client.ts";
import { appPasswordFile, appUrl } from "../../stack/replicated-databases.ts";
import { foldersOf, shardVariable } from "../../stack/stack-plan.ts";
import { topologyOf } from "../../topology-flags.ts";

/** A topology for tools beside the app, with the environment in which its addresses are found. */
export async function databasesOf(
  values: Values,
  context: CommandContext,
): Promise<{ readonly topology: Topology; readonly environment: Environment }> {
  const { environment, folder, signal } = context;
  const topology = await topologyOf(values, context);
  const place = resolve(folder, topology.dataDirectory);
  const running = await askStatus(place, signal);
  if (running === undefined || running.shards.length === 0) return { topology, environment };
  const { shards, placement } = running;
  const password = (await readFile(join(foldersOf(place).secrets, appPasswordFile), "utf8")).trim();
  return {
    topology: {
      ...topology,
      database: {
        ...topology.database,
        ...placement,
        shards: shards.map(({ shard }) => ({ leader: env(shardVariable(shard)) })),
      },
    },
    environment: {
      ...environment,
      ...Object.fromEntries(
        shards.map(({ shard, leaderPort }) => [shardVariable(shard), appUrl(leaderPort, password)]),
      ),
    },
  };
}
