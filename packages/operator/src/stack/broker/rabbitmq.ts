/**
 * RabbitMQ of a stack: one server on loopback, with Erlang's port mapper (epmd) as a process of its own beside it. Erlang would start
 * one itself otherwise, which everybody on the machine shares and which nobody stops.
 */
import { connect } from "node:net";
import { join } from "node:path";
import type { Component } from "../component.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { privateFolder, writePrivate } from "../process/secrets.ts";
import { type RabbitmqPorts, rabbitmqConfig, rabbitmqEnvironment, rabbitmqUser } from "./rabbitmq-config.ts";
import { probeRabbitmq } from "./rabbitmq-probe.ts";
import type { RabbitmqPrograms } from "./rabbitmq-programs.ts";

export interface RabbitmqOptions {
  readonly programs: RabbitmqPrograms;
  /** The stack's; RabbitMQ's own is below it. */
  readonly folder: string;
  readonly logFolder: string;
  readonly ports: RabbitmqPorts;
  readonly password: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

const name = "rabbitmq";

/** The address that the app's processes get, with the password. */
export function rabbitmqUrl({ port, password }: { readonly port: number; readonly password: string }): string {
  return `amqp://${rabbitmqUser}:${password}@127.0.0.1:${port}/`;
}

/** Makes the component; the files are written when it starts. */
export function rabbitmqComponent(options: RabbitmqOptions): Component {
  const { programs, logFolder, ports, password } = options;
  const folder = join(options.folder, name);
  const environment = rabbitmqEnvironment({ folder, ports, path: options.environment["PATH"] });
  const mapper = new ManagedProcess({
    name: "rabbitmq-epmd",
    role: "broker",
    command: programs.epmd,
    args: ["-port", String(ports.epmd), "-address", "127.0.0.1"],
    folder,
    environment,
    port: ports.epmd,
    logFolder,
    probe: (signal) => connects(ports.epmd, signal),
  });
  const server = new ManagedProcess({
    name,
    role: "broker",
    command: programs.server,
    args: [],
    folder,
    environment,
    port: ports.amqp,
    logFolder,
    probe: (signal) => probeRabbitmq({ port: ports.amqp, user: rabbitmqUser, password, signal }),
    // A cold machine takes 10 s, one that starts 50 other processes more.
    startTimeoutMs: 90_000,
    stopTimeoutMs: 15_000,
  });
  return {
    name,
    role: "broker",
    needs: [],
    plan: programs.server,
    async start(signal) {
      await privateFolder(folder);
      for (const part of ["data", "log", "conf.d"]) await privateFolder(join(folder, part));
      const write = (file: string, content: string) => writePrivate(join(folder, file), content);
      await write("rabbitmq.conf", rabbitmqConfig({ port: ports.amqp, password }));
      await write("advanced.config", "[].\n");
      await write("enabled_plugins", "[].\n");
      await write("rabbitmq-env.conf", "");
      await mapper.start(signal);
      await server.start(signal);
    },
    async stop() {
      await server.stop();
      await mapper.stop();
    },
    processes: () => [...server.report(), ...mapper.report()],
  };
}

function connects(port: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", signal });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.destroy();
      resolve();
    });
  });
}
