/** The distance between the regions of a stack on one machine: a process through which the ways from one to another lead. */
import { connect } from "node:net";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import type { Component } from "../component.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import type { DistanceRoute } from "./distance-relay.ts";

/** Name of the part, of its process, and of the port at which it sends back what it gets. */
export const distanceName = "distance";

/** Name of the port by which other regions reach a server. */
export const farPortName = (server: string) => `${server}-far`;

/** The file beside this one: TypeScript in a checkout, JavaScript in the published package. */
const program = fileURLToPath(new URL(`./distance-process${extname(fileURLToPath(import.meta.url))}`, import.meta.url));

/** Makes the component. Ready: a word that was sent through it has come back. */
export function distanceComponent(options: {
  /** Names of the servers that other regions reach through it. */
  readonly servers: readonly string[];
  readonly ports: Readonly<Record<string, number>>;
  readonly roundTripMs: number;
  readonly folder: string;
  readonly logFolder: string;
}): Component {
  const { servers, ports, roundTripMs, folder, logFolder } = options;
  const echoPort = ports[distanceName] as number;
  const routes: DistanceRoute[] = [
    { name: distanceName, port: echoPort, to: undefined },
    ...servers.map((name) => ({ name, port: ports[farPortName(name)] as number, to: ports[name] as number })),
  ];
  const child = new ManagedProcess({
    name: distanceName,
    role: "distance",
    command: process.execPath,
    // The name is there for people who look at a list of processes.
    args: [program, distanceName],
    folder,
    environment: { PATH: process.env["PATH"], RUNGS_DISTANCE: JSON.stringify({ roundTripMs, routes }) },
    port: echoPort,
    logFolder,
    probe: (signal) => echo(echoPort, signal),
    stopTimeoutMs: 2_000,
  });
  return {
    name: distanceName,
    role: "distance",
    needs: [],
    plan: `${process.execPath} ${program} (${roundTripMs} ms there and back, ${servers.length} ways)`,
    start: (signal) => child.start(signal),
    stop: () => child.stop(),
    processes: () => child.report(),
  };
}

function echo(port: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", signal });
    socket.on("error", reject);
    socket.once("close", () => reject(new Error("The distance closed the connection.")));
    socket.once("data", () => {
      resolve();
      socket.destroy();
    });
    socket.write("there and back");
  });
}
