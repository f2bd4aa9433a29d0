/** Real memcached servers for tests, on free ports of loopback, each killed when this process ends in whatever way. */
import { spawn } from "node:child_process";
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import { until } from "./test-redis.ts";

/** A running test server. */
export interface TestMemcached {
  readonly port: number;
  /** `memcached://127.0.0.1:port`. */
  readonly url: string;
  /** Sends a command of the classic protocol that is answered in one line, and gives that. */
  ask(line: string): Promise<string>;
  /** Kills it as a crash would, and waits for its end. */
  kill(): Promise<void>;
  /** Starts it again on its port, empty. */
  restart(): Promise<void>;
  /** Stops its process in its tracks, or lets it go on. */
  freeze(isFrozen: boolean): void;
  /** Kills it for good. Safe to call twice. */
  stop(): Promise<void>;
}

/** The shell kills the server when the pipe that this process holds is closed. */
const supervisor = `
trap '' INT TERM HUP PIPE
"$@" 3<&- &
server=$!
echo "pid $server"
{ read -r _ <&3; kill -KILL $server; } 2>/dev/null &
watcher=$!
wait $server
kill -KILL $watcher 2>/dev/null
`;

/** Starts a server; `megabytes` bounds its memory, default 64. */
export async function startTestMemcached({
  megabytes = 64,
}: {
  readonly megabytes?: number;
} = {}): Promise<TestMemcached> {
  const port = await freePort();
  const user = process.getuid?.() === 0 ? ["-u", "nobody"] : [];
  const command = ["memcached", ...user, "-l", "127.0.0.1", "-p", String(port), "-U", "0", "-m", String(megabytes)];
  const ask = (line: string) => askOnce(port, line);
  const start = async () => {
    const started = await spawnServer(command);
    await until("the test memcached answers", async () => (await ask("version")).startsWith("VERSION"), 10_000);
    return started;
  };
  let server = await start();
  const end = () => server.end();
  return {
    port,
    url: `memcached://127.0.0.1:${port}`,
    ask,
    kill: end,
    async restart() {
      await end();
      server = await start();
    },
    freeze: (isFrozen) => void process.kill(server.pid, isFrozen ? "SIGSTOP" : "SIGCONT"),
    stop: end,
  };
}

async function spawnServer(command: readonly string[]): Promise<{ readonly pid: number; end(): Promise<void> }> {
  const child = spawn("sh", ["-c", supervisor, "sh", ...command], {
    env: { PATH: process.env["PATH"] },
    // The shell would say there that the server was killed.
    stdio: ["ignore", "pipe", "ignore", "pipe"],
  });
  const pipe = child.stdio[3] as Socket;
  pipe.on("error", () => {});
  const pid = await new Promise<number>((resolve, reject) => {
    let text = "";
    child.stdout?.setEncoding("utf8").on("data", (piece: string) => {
      text += piece;
      const [, digits] = /^pid (\d+)$/m.exec(text) ?? [];
      if (digits !== undefined) resolve(Number(digits));
    });
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`memcached ended with ${code}`)));
  });
  child.unref();
  (child.stdout as Socket).unref();
  pipe.unref();
  return {
    pid,
    async end() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
      child.ref();
      pipe.destroy();
      await ended;
    },
  };
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

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });
}
