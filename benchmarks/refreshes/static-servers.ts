/** The limit: nginx with files of the same bytes as the app's answers, and Varnish with nothing of ours in front of that. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { benchFolder } from "../stack/launcher.ts";

export interface StaticServers {
  readonly nginx: number;
  readonly varnish: number;
  stop(): Promise<void>;
}

/** Serves `/NAME` for each of the files. */
export async function startStaticServers(files: Readonly<Record<string, Buffer>>): Promise<StaticServers> {
  const folder = await benchFolder();
  await mkdir(join(folder, "files"));
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(folder, "files", name), bytes);
  const [nginx, varnish] = [await freePort(), await freePort()];
  await writeFile(join(folder, "nginx.conf"), nginxConfig(folder, nginx));
  const children = [
    spawn("nginx", ["-p", folder, "-e", "stderr", "-c", join(folder, "nginx.conf")], { stdio: "inherit" }),
  ];
  await answers(nginx, Object.keys(files));
  const args = ["-F", "-n", join(folder, "varnish"), "-j", "none", "-T", "none", "-a", `127.0.0.1:${varnish}`];
  const same = ["-s", "malloc,256m", "-p", "vsl_space=8m", "-p", "thread_pool_min=50", "-t", "3600"];
  children.push(spawn("varnishd", [...args, "-b", `127.0.0.1:${nginx}`, ...same], { stdio: "ignore" }));
  await answers(varnish, Object.keys(files));
  return {
    nginx,
    varnish,
    async stop() {
      await Promise.all(children.map(end));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

function nginxConfig(folder: string, port: number): string {
  const user = process.getuid?.() === 0 ? "user root;" : "";
  return `daemon off; worker_processes auto; pid ${folder}/nginx.pid; ${user}
events { worker_connections 1024; }
http {
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; open_file_cache max=100;
  client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
  uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
  server { listen 127.0.0.1:${port} backlog=1024; root ${folder}/files; }
}
`;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, "close");
  return port;
}

async function answers(port: number, names: readonly string[]): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      for (const name of names) {
        const response = await fetch(`http://127.0.0.1:${port}/${name}`);
        await response.arrayBuffer();
        if (response.status !== 200) throw new Error(`/${name} answered ${response.status}`);
      }
      return;
    } catch (error) {
      if (tries > 200) throw error;
      await sleep(50);
    }
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGTERM");
  await once(child, "exit");
}
