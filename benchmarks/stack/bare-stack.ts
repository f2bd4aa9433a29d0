/** Bare Fastify processes behind a bare nginx: the yardstick of a stack. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { EmbeddedConnection } from "rungs/database/embedded";
import { benchFolder } from "./launcher.ts";

const bareServer = fileURLToPath(new URL("../bare-server.ts", import.meta.url));

export interface BareStack {
  readonly port: number;
  stop(): Promise<void>;
}

/** Starts so many processes of `bare-server.ts` and an nginx that keeps connections to them. */
export async function startBareStack(processes: number, database: EmbeddedConnection): Promise<BareStack> {
  const folder = await benchFolder();
  const started = await Promise.all(Array.from({ length: processes }, () => startBare(database)));
  const port = await freePort();
  const config = join(folder, "nginx.conf");
  await mkdir(join(folder, "work"), { recursive: true });
  await writeFile(config, nginxConfig({ folder, port, ports: started.map((one) => one.port) }));
  const nginx = spawn("nginx", ["-p", folder, "-c", config, "-e", join(folder, "error.log")], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  await untilAnswers(port);
  return {
    port,
    async stop() {
      await Promise.all([nginx, ...started.map(({ child }) => child)].map((child) => end(child)));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function nginxConfig({ folder, port, ports }: { folder: string; port: number; ports: readonly number[] }): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `daemon off;
worker_processes auto;
pid ${folder}/nginx.pid;
events { worker_connections 4096; }
http {
  access_log ${folder}/access.log combined buffer=32k flush=1s;
  keepalive_requests 1000000;
${temporary.map((name) => `  ${name}_temp_path ${folder}/work/${name};`).join("\n")}
  upstream web {
    least_conn;
${ports.map((one) => `    server 127.0.0.1:${one};`).join("\n")}
    keepalive 64;
  }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://web;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
}
`;
}

async function startBare(database: EmbeddedConnection): Promise<{ child: ChildProcess; port: number }> {
  const child = spawn(process.execPath, [bareServer], {
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    env: { ...process.env, NODE_ENV: "production", BARE_DATABASE: JSON.stringify(database) },
  });
  const [{ port }] = (await once(child, "message")) as [{ port: number }];
  return { child, port };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

async function untilAnswers(port: number): Promise<void> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const answer = await fetch(`http://127.0.0.1:${port}/api/articles?limit=1`).catch(() => undefined);
    if (answer?.ok === true) return;
    if (performance.now() > deadline) throw new Error("nginx before the bare servers does not answer");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  await ended;
}
