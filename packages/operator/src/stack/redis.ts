/** Redis for sessions: on loopback, with a password, and with what it holds on disk. */
import { mkdir } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import type { Component } from "./component.ts";
import { ManagedProcess } from "./managed-process.ts";
import { writePrivate } from "./secrets.ts";

export interface RedisOptions {
  readonly name: string;
  readonly program: string;
  readonly folder: string;
  readonly logFolder: string;
  readonly port: number;
  readonly password: string;
}

/** Its configuration. Sessions are data: never evicted, written to disk every second. */
export function redisConfig({ port, password, data }: { port: number; password: string; data: string }): string {
  return `# Redis for sessions. Written by rungs up at each start: changes here are lost.
bind 127.0.0.1
port ${port}
protected-mode yes
requirepass ${password}
daemonize no
dir ${JSON.stringify(data)}

# A session that was given out must not vanish: a full memory refuses new ones instead, and a restart finds all of them, but for
# the last second.
maxmemory 256mb
maxmemory-policy noeviction
appendonly yes
appendfsync everysec
save ""

# Only what fills memory at once counts as a runaway client.
tcp-keepalive 60
timeout 0
loglevel notice
`;
}

/** Makes the component; the files are written when it starts. */
export function redisComponent({ name, program, folder, logFolder, port, password }: RedisOptions): Component {
  const place = join(folder, name);
  const configFile = join(place, "redis.conf");
  const redis = new ManagedProcess({
    name,
    role: "sessions",
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
    role: "sessions",
    needs: [],
    plan: `${program} ${configFile}`,
    async start(signal) {
      await mkdir(place, { recursive: true, mode: 0o700 });
      await writePrivate(configFile, redisConfig({ port, password, data: place }));
      await redis.start(signal);
    },
    stop: () => redis.stop(),
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
