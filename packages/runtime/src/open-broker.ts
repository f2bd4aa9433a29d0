/** The message broker of a topology; it connects when it is first used. */
import type { Logger } from "./kernel/log.ts";
import { kafkaBroker } from "./queue/drivers/kafka-broker.ts";
import { rabbitmqBroker } from "./queue/drivers/rabbitmq-broker.ts";
import type { Broker } from "./queue/index.ts";
import { type Environment, Secret, type Topology } from "./topology/index.ts";

/** Undefined where jobs live in the database alone. Raises `CONFIG_INVALID` for an address that no driver takes, and `SECRET_MISSING`. */
export function openBroker({ queue }: Topology, environment: Environment, log: Logger): Broker | undefined {
  const { url: address, prefix, partitions } = queue;
  if (address === undefined) return undefined;
  const url = address instanceof Secret ? address.reveal(environment) : address;
  const options = { url, prefix, partitions, log };
  return url.startsWith("kafka") ? kafkaBroker(options) : rabbitmqBroker(options);
}
