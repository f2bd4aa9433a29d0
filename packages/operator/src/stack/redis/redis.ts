/** Redis of a stack, on loopback and with a password: for sessions, with what it holds on disk; or for the cache, in memory alone. */
import { mkdir } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import type { Component } from "../component.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { writePrivate } from "../process/secrets.ts";

export interface RedisOptions {
  readonly name: string;
  /** "sessions" keeps all it was given; "cache" lets go of what was not used lately. */
  readonly role: "sessions" | "cache";
  /** Default none. */
  readonly region?: string | undefined;
  readonly program: string;
  readonly folder: string;
  /** The folder of its own in there; default its name. */
  readonly place?: string;
  readonly logFolder: string;
  readonly port: number;
  readonly password: string;
}

/** Its configuration. Sessions are data: never evicted, written to disk every second. A cache is none. */
export function redisConfig(options: {
  readonly port: number;
  readonly password: string;
  readonly data: string;
  readonly role: RedisOptions["role"];
}): string {
  const { port, password, data, role } = options;
  return `# Redis for ${role === "cache" ? "the cache" : "sessions"}. Written by rungs up at each start: changes here are lost.
bind 127.0.0.1
port ${port}
protected-mode yes
requirepass ${password}
daemonize no
dir ${JSON.stringify(data)}

${role === "cache" ? cacheKeeping : sessionKeeping}

# Only what fills memory at once counts as a runaway client.
tcp-keepalive 60
timeout 0
loglevel notice
`;
}

const sessionKeeping = `# A session that was given out must not vanish: a full memory refuses new ones instead, and a restart finds all of them, but for
# the last second.
maxmemory 256mb
maxmemory-policy noeviction
appendonly yes
appendfsync everysec
save ""`;

const cacheKeeping = `# Whatever is missing is read from the database: a full memory lets go of what was used least lately, and a restart begins empty.
maxmemory 256mb
maxmemory-policy allkeys-lru
appendonly no
save ""`;

/** Makes the component; the files are written when it starts. */
export function redisComponent(options: RedisOptions): Component {
  const { name, role, region, program, folder, logFolder, port, password } = options;
  const place = join(folder, options.place ?? name);
  const configFile = join(place, "redis.conf");
  const redis = new ManagedProcess({
    name,
    role,
    command: program,
    args: [configFile],
    folder,
    environment: { PATH: process.env["PATH"], LC_ALL: "C.UTF-8" },
    port,
    logFolder,
    probe: (signal) => ping(port, password, signal),
  });
  return {
    name,
    role,
    ...(region === undefined ? {} : { region }),
    needs: [],
    plan: `${program} ${configFile}`,
    async start(signal) {
      await mkdir(place, { recursive: true, mode: 0o700 });
      await writePrivate(configFile, redisConfig({ port, password, role, data: place }));
      await redis.start(signal);
    },
    stop: () => redis.stop(),
    lose: () => redis.lose(),
    processes: () => redis.report(),
  };
}

/** AUTH and PING in Redis's inline form; a server that still reads its file answers -LOADING. */
function ping(port: number, password: string, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", signal });
    let answer = "";
    socket.setEncoding("utf8").on("data", (text) => {
      answer += text;
      if (answer === "+OK\r\n+PONG\r\n") {
        socket.destroy();
        resolve();
      } else if (answer.includes("-")) socket.destroy(new Error(answer));
    });
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("Redis closed the connection.")));
    socket.write(`AUTH ${password}\r\nPING\r\n`);
  });
}
