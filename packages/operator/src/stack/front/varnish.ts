/** Varnish as the CDN's point of presence of a stack. */
import { chmod, chown, mkdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Component } from "../component.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { writePrivate } from "../process/secrets.ts";
import { isOpen } from "./nginx.ts";
import { type Edge, varnishConfig } from "./varnish-config.ts";

/** Settings of {@link varnishComponent}. */
export interface VarnishOptions {
  readonly edge: Edge;
  readonly program: string;
  /** Of the part and of its log; default "varnish". */
  readonly name?: string;
  /** Default none. */
  readonly region?: string | undefined;
  /** The folder of its stack, or of its region. */
  readonly folder: string;
  readonly logFolder: string;
  readonly needs: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly listen: { readonly host: string; readonly port: number };
  /** Port of the purge socket, on loopback. */
  readonly purgePort: number;
  /** Memory for answers; default 256 MB. */
  readonly megabytes?: number;
  /** Resolves when a request to the app has worked through it; raises when not. */
  readonly probe: (signal: AbortSignal) => Promise<void>;
}

/** Folder of its own files, which `varnishstat -n` reads as well. */
export function varnishFolder(folder: string): string {
  return join(folder, "varnish", "run");
}

/** Makes the component; the files are written when it starts. */
export async function varnishComponent(options: VarnishOptions): Promise<Component> {
  const { edge, program, folder, logFolder, needs, environment, listen, purgePort, probe } = options;
  const { name = "varnish", region } = options;
  const configFile = join(folder, "varnish", "edge.vcl");
  const run = varnishFolder(folder);
  const host = listen.host.includes(":") ? `[${listen.host}]` : listen.host;
  const group = await jailGroup(folder);
  const parameters = {
    // Where nobody reads the shared log, what it takes by default would be lost memory.
    vsl_space: "8m",
    // Idle connections, slow headers, and how long an upload may pause.
    timeout_idle: 15,
    // Before nginx ends it after 60 s: a request on a connection that is just ending could not be repeated when it has a body.
    backend_idle_timeout: 30,
    thread_pool_min: 50,
    // First try, fresh try, old answer.
    max_restarts: 3,
  };
  const args = [
    ...["-F", "-n", run, "-j", group === undefined ? "none" : "unix", "-T", "none", "-f", configFile],
    ...["-a", `public=${host}:${listen.port}`, "-a", `purge=127.0.0.1:${purgePort}`],
    ...["-s", `malloc,${options.megabytes ?? 256}m`],
    ...Object.entries(parameters).flatMap(([name, value]) => ["-p", `${name}=${value}`]),
  ];
  const varnish = new ManagedProcess({
    name,
    role: "cdn",
    command: program,
    args,
    folder,
    // It compiles its file with the C compiler that it finds.
    environment: { PATH: environment["PATH"], LC_ALL: "C", TMPDIR: environment["TMPDIR"] },
    port: listen.port,
    logFolder,
    probe,
    stopTimeoutMs: 5_000,
  });
  return {
    name,
    role: "cdn",
    ...(region === undefined ? {} : { region }),
    needs,
    plan: [program, ...args].join(" "),
    async start(signal) {
      // They hold the secret of the purges: nobody else may pass.
      await mkdir(dirname(configFile), { recursive: true, mode: 0o700 });
      await writePrivate(configFile, varnishConfig(edge));
      if (group === undefined) {
        await chmod(dirname(configFile), 0o700);
      } else {
        for (const [path, mode] of [[dirname(configFile), 0o750] as const, [configFile, 0o640] as const]) {
          await chown(path, 0, group);
          await chmod(path, mode);
        }
      }
      await varnish.start(signal);
    },
    stop: () => varnish.stop(),
    lose: () => varnish.lose(),
    processes: () => varnish.report(),
  };
}

/**
 * Started by root, it gives its rights up for the users of its package, in whose group the files must be; undefined where it runs as
 * whoever starts it. In a folder that they cannot pass through it runs as root.
 */
async function jailGroup(folder: string): Promise<number | undefined> {
  if (process.getuid?.() !== 0 || !(await isOpen(folder))) return undefined;
  const groups = await readFile("/etc/group", "utf8").catch(() => "");
  const id = /^varnish:[^:]*:(\d+):/m.exec(groups)?.[1];
  return id === undefined ? undefined : Number(id);
}
