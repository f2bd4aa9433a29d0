/** The message broker of a stack: RabbitMQ or Kafka, whichever was chosen. */
import type { Component } from "../component.ts";
import { findKafka } from "../process/programs.ts";
import { generatedSecret } from "../process/secrets.ts";
import type { BrokerKind } from "../stack-plan.ts";
import { kafkaComponent, kafkaUrl } from "./kafka.ts";
import { rabbitmqComponent, rabbitmqUrl } from "./rabbitmq.ts";
import { findRabbitmq, type RabbitmqPrograms } from "./rabbitmq-programs.ts";

/** Names of the ports that it takes. */
export function brokerPorts(kind: BrokerKind): string[] {
  return kind === "kafka" ? ["kafka", "kafka-controller"] : ["rabbitmq", "rabbitmq-epmd", "rabbitmq-distribution"];
}

/** Name of its secret. */
export const brokerSecret = (kind: BrokerKind) => `${kind}-password`;

/** The address that processes get, with the password. */
export function brokerUrl(
  kind: BrokerKind,
  { port, password }: { readonly port: number; readonly password: string },
): string {
  return kind === "kafka" ? kafkaUrl({ port, password }) : rabbitmqUrl({ port, password });
}

/** Makes the component, with the address that the app's processes get: it holds the password. */
export async function brokerComponent(
  kind: BrokerKind,
  options: {
    readonly ports: Readonly<Record<string, number>>;
    readonly folder: string;
    readonly logFolder: string;
    readonly secrets: string;
    readonly environment: Readonly<Record<string, string | undefined>>;
  },
): Promise<{ readonly component: Component; readonly url: string }> {
  const { ports, folder, logFolder, secrets, environment } = options;
  const password = await generatedSecret(secrets, brokerSecret(kind));
  const port = ports[kind] as number;
  const url = brokerUrl(kind, { port, password });
  if (kind === "kafka") {
    const own = { kafka: port, kafkaController: ports["kafka-controller"] as number };
    const home = findKafka(environment) as string;
    return {
      component: kafkaComponent({ ...{ home, folder, logFolder, environment, password }, ports: own }),
      url,
    };
  }
  const own = {
    amqp: port,
    epmd: ports["rabbitmq-epmd"] as number,
    distribution: ports["rabbitmq-distribution"] as number,
  };
  const programs = findRabbitmq(environment) as RabbitmqPrograms;
  return {
    component: rabbitmqComponent({ ...{ programs, folder, logFolder, environment, password }, ports: own }),
    url,
  };
}
