/** Real memcached servers for tests, on free ports of loopback, each killed when this process ends in whatever way. */
import { mkdtemp } from "node:fs/promises";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePorts } from "./support/free-ports.ts";
import { type SupervisedServer, startSupervisedServer } from "./support/supervised-server.ts";

/** A running test server; started again, it is empty. */
export interface TestMemcached extends SupervisedServer {
  readonly port: number;
  /** `memcached://127.0.0.1:port`. */
  readonly url: string;
  /** Sends a command of the classic protocol that is answered in one line, and gives that. */
  ask(line: string): Promise<string>;
}

/** Starts a server; `megabytes` bounds its memory, default 64. */
export async function startTestMemcached({
  megabytes = 64,
}: {
  readonly megabytes?: number;
} = {}): Promise<TestMemcached> {
  const { port } = await freePorts("port");
  const user = process.getuid?.() === 0 ? ["-u", "nobody"] : [];
  const command = ["memcached", ...user, "-l", "127.0.0.1", "-p", String(port), "-U", "0", "-m", String(megabytes)];
  const ask = (line: string) => askOnce(port, line);
  const server = await startSupervisedServer({
    name: "memcached",
    folder: await mkdtemp(join(tmpdir(), "rungs-memcached-")),
    command,
    isReady: async () => (await ask("version")).startsWith("VERSION"),
    readyWithinMs: 10_000,
  });
  return { ...server, port, url: `memcached://127.0.0.1:${port}`, ask };
}

function askOnce(port: number, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ port, host: "127.0.0.1" });
    socket.setTimeout(2_000, () => socket.destroy(new Error("memcached did not answer")));
    socket.once("error", reject);
    socket.once("data", (bytes) => {
      resolve(bytes.toString().trim());
      socket.destroy();
    });
    socket.write(`${line}\r\n`);
  });
}
