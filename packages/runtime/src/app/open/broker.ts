/** The message broker of a topology; it connects when it is first used. */
import { readFile } from "node:fs/promises";
import { ConfigError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import { kafkaBroker } from "../../queue/drivers/kafka-broker.ts";
import { rabbitmqBroker } from "../../queue/drivers/rabbitmq-broker.ts";
import type { Broker } from "../../queue/index.ts";
import { type Environment, Secret, type Topology } from "../../topology/index.ts";

/**
 * Undefined where jobs live in the database alone. Raises `CONFIG_INVALID` for an address that no driver takes and a file of certificates
 * that cannot be read, and `SECRET_MISSING`.
 */
export async function openBroker(
  { queue }: Topology,
  environment: Environment,
  log: Logger,
): Promise<Broker | undefined> {
  const { url: address, caFile, prefix, partitions } = queue;
  if (address === undefined) return undefined;
  const url = address instanceof Secret ? address.reveal(environment) : address;
  const ca = caFile === undefined ? {} : { ca: await readCertificates(caFile) };
  const options = { url, ...ca, prefix, partitions, log };
  return url.startsWith("kafka") ? kafkaBroker(options) : rabbitmqBroker(options);
}

async function readCertificates(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    const message = `queue.caFile: ${file} could not be read. Give the path of a file of certificates in PEM.`;
    throw new ConfigError("CONFIG_INVALID", message, { cause: error });
  }
}
