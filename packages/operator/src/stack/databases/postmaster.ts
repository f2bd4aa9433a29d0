/**
 * The main process of a PostgreSQL server that somebody else started, by the file that it keeps in its data folder.
 *
 * Patroni's servers are nobody's children: they go on when Patroni dies, which is right, and when the launcher dies, which is not.
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { identify, isRunning, type ProcessIdentity, signalProcess } from "../process/process-identity.ts";

/** How long each way of stopping may take: transactions broken off, everything dropped, killed. */
const stopSteps: readonly (readonly [NodeJS.Signals, number])[] = [
  ["SIGINT", 15_000],
  ["SIGQUIT", 5_000],
  ["SIGKILL", 2_000],
];

/** The server that runs on this data folder; undefined when none does. */
export function postmasterOn(dataFolder: string): ProcessIdentity | undefined {
  let pid: number;
  try {
    pid = Number(readFileSync(join(dataFolder, "postmaster.pid"), "utf8").split("\n")[0]);
  } catch {
    return undefined;
  }
  const found = identify(pid);
  // The file outlives a killed server, and its number may be another program's by now.
  return found !== undefined && commandOf(pid).includes(dataFolder) ? found : undefined;
}

/** Stops the server on this data folder, and waits until it has ended. Gives whether there was one. */
export async function stopPostmaster(dataFolder: string): Promise<boolean> {
  const server = postmasterOn(dataFolder);
  if (server === undefined) return false;
  for (const [signal, withinMs] of stopSteps) {
    signalProcess(server, signal);
    const until = performance.now() + withinMs;
    while (isRunning(server) && performance.now() < until) await sleep(20);
    if (!isRunning(server)) break;
  }
  return true;
}

/** Kills the server on this data folder with all its processes: frozen ones would not notice that it is gone, and keep its memory. */
export function killPostmaster(dataFolder: string): void {
  const server = postmasterOn(dataFolder);
  if (server === undefined) return;
  const children = childrenOf(server.pid);
  signalProcess(server, "SIGKILL");
  for (const child of children) signalProcess(child, "SIGKILL");
}

/** Resolves when the server on this port of loopback answers at all: it says whether it speaks TLS before it asks who calls. */
export function askPostmaster(port: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", signal });
    socket.on("error", reject);
    socket.once("close", () => reject(new Error("The server closed the connection.")));
    socket.once("data", () => {
      resolve();
      socket.destroy();
    });
    // SSLRequest (PostgreSQL's protocol, message formats).
    socket.write(Buffer.from([0, 0, 0, 8, 4, 210, 22, 47]));
  });
}

function childrenOf(pid: number): ProcessIdentity[] {
  try {
    const text =
      process.platform === "linux"
        ? readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8")
        : execFileSync("pgrep", ["-P", String(pid)], { encoding: "utf8" });
    return text
      .split(/\s+/)
      .map((child) => identify(Number(child)))
      .filter((child) => child !== undefined);
  } catch {
    return [];
  }
}

function commandOf(pid: number): string {
  try {
    if (process.platform === "linux") return readFileSync(`/proc/${pid}/cmdline`, "utf8");
    return execFileSync("ps", ["-o", "args=", "-p", String(pid)], { encoding: "utf8" });
  } catch {
    return "";
  }
}
