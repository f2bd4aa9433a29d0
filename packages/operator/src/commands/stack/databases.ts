/** Where the app's databases and its broker are: those of the stack that runs in the folder, else those that flags and settings name. */
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Environment, env, type Topology } from "rungs/topology";
import type { CommandContext, Values } from "../../command.ts";
import { brokerSecret, brokerUrl } from "../../stack/broker/broker.ts";
import type { StackStatus } from "../../stack/component.ts";
import { askStatus } from "../../stack/control/control-client.ts";
import { appPasswordFile, appUrl } from "../../stack/databases/replicated-databases.ts";
import { foldersOf } from "../../stack/stack-plan.ts";
import { brokerVariable, shardVariable } from "../../stack/variables.ts";
import { topologyOf } from "../../topology-flags.ts";

interface Found {
  readonly topology: Topology;
  readonly environment: Environment;
}

/** A topology for tools beside the app, with the environment in which its addresses are found. */
export async function databasesOf(values: Values, context: CommandContext): Promise<Found> {
  const { environment, folder, signal } = context;
  const topology = await topologyOf(values, context);
  const place = resolve(folder, topology.dataDirectory);
  const running = await askStatus(place, signal);
  if (running === undefined) return { topology, environment };
  const { secrets } = foldersOf(place);
  const secret = async (name: string) => (await readFile(join(secrets, name), "utf8")).trim();
  return withBroker(running, await withShards(running, { topology, environment }, secret), secret);
}

/** Embedded databases tell their addresses themselves. */
async function withShards(
  { shards, placement }: StackStatus,
  { topology, environment }: Found,
  secret: (name: string) => Promise<string>,
): Promise<Found> {
  if (shards.length === 0) return { topology, environment };
  const password = await secret(appPasswordFile);
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

async function withBroker(
  { broker, processes }: StackStatus,
  { topology, environment }: Found,
  secret: (name: string) => Promise<string>,
): Promise<Found> {
  const port = processes.find(({ name }) => name === broker)?.port;
  if (broker === null || typeof port !== "number") return { topology, environment };
  const password = await secret(brokerSecret(broker));
  return {
    topology: { ...topology, queue: { ...topology.queue, url: env(brokerVariable) } },
    environment: { ...environment, [brokerVariable]: brokerUrl(broker, { port, password }) },
  };
}
