/** nginx as the balancer of a stack. */

import { createHash } from "node:crypto";
import { chmod, mkdir, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Component } from "../component.ts";
import { keepBounded } from "../process/bounded-file.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { type Balancer, unavailableJson, unavailablePage } from "./balancer.ts";
import { nginxConfig } from "./nginx-config.ts";
import type { RoutingRule } from "./routing-rules.ts";

/** What every balancer of a stack can do. */
export interface BalancerComponent extends Component {
  /** Resolves when a place that has just come to life gets requests. */
  settled(place: string): Promise<void>;
  /** Told before a place stops listening. */
  leaving(place: string): Promise<void>;
  /** Asks for the routes again; where they are others than before, requests are sent by the new ones from now on. */
  reroute(): Promise<void>;
}

/** Settings of a balancer's component. */
export interface BalancerOptions {
  /** Of the part and of its logs; default "balancer". */
  readonly name?: string;
  /** Default none. */
  readonly region?: string | undefined;
  /** nginx's worker processes, or HAProxy's threads; default 2. */
  readonly workers?: number;
  readonly balancer: Balancer;
  readonly program: string;
  /** The folder of its stack, or of its region. */
  readonly folder: string;
  readonly logFolder: string;
  readonly needs: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Resolves when a request to the app has worked through the balancer; raises when not. */
  readonly probe: (signal: AbortSignal) => Promise<void>;
  /** Whether somebody is meant to listen on this port now: errors of free places are no news. */
  readonly isInUse: (port: number) => boolean;
  /** Rules of the groups of services, asked for at the start and by `reroute`; default none. */
  readonly rules?: () => Promise<readonly RoutingRule[]>;
}

/**
 * nginx looks again at a place that failed when over `fail_timeout` (1 s) has passed, on a clock of whole seconds: after up to two.
 */
const settleMs = 2_100;
const closedHomeBase = "/var/lib/rungs";

/** Makes the component; the files are written when it starts. */
export function nginxComponent(options: BalancerOptions): BalancerComponent {
  const { program, folder, logFolder, needs, environment, probe, isInUse, balancer, rules } = options;
  const { name = "balancer", region, workers = 2 } = options;
  const configFile = join(folder, "nginx", "nginx.conf");
  const accessLog = join(logFolder, `${name}-access.log`);
  const args = ["-e", "stderr", "-p", join(folder, "nginx"), "-c", configFile];
  const nginx = new ManagedProcess({
    name,
    role: "balancer",
    command: program,
    args,
    folder,
    environment: { PATH: environment["PATH"], LC_ALL: "C", TZ: environment["TZ"] },
    port: balancer.listen.port,
    logFolder,
    probe,
    // Fast: requests under way get what the web processes, stopped after it, still answer.
    stopSignal: "SIGQUIT",
    stopTimeoutMs: 3_000,
    keepLine: (line) => !isOfFreePlace(line, isInUse),
  });
  let written = "";
  /** Whether it is another one than before. */
  const writeConfig = async (): Promise<boolean> => {
    const work = await workFolder(folder);
    await mkdir(dirname(configFile), { recursive: true, mode: 0o755 });
    const { split } = balancer;
    const model = split === undefined ? balancer : { ...balancer, split: { ...split, rules: (await rules?.()) ?? [] } };
    const text = nginxConfig(model, { work, pages: join(work, "pages"), accessLog, workers });
    if (text === written) return false;
    await writeFile(configFile, text);
    written = text;
    return true;
  };
  let bounded: { stop(): void } | undefined;
  return {
    name,
    role: "balancer",
    ...(region === undefined ? {} : { region }),
    needs,
    plan: [program, ...args].join(" "),
    async start(signal) {
      await mkdir(folder, { recursive: true, mode: 0o755 });
      await writeConfig();
      bounded?.stop();
      bounded = keepBounded(accessLog);
      await nginx.start(signal);
    },
    async stop() {
      bounded?.stop();
      await nginx.stop();
    },
    async lose() {
      bounded?.stop();
      await nginx.lose();
    },
    processes: () => nginx.report(),
    settled: () => new Promise((resolve) => setTimeout(resolve, settleMs)),
    leaving: async () => {},
    async reroute() {
      // Idle connections of clients are closed by it, so only where it changes something.
      if (await writeConfig()) nginx.signal("SIGHUP");
    },
  };
}

/** "connect() failed (111: Connection refused) ... upstream: "http://127.0.0.1:20005/..."" and what it says of that place then. */
function isOfFreePlace(line: string, isInUse: (port: number) => boolean): boolean {
  if (!/connect\(\) failed|temporarily disabled/.test(line)) return false;
  const port = /upstream: "http:\/\/[^/"]*:(\d+)/.exec(line)?.[1];
  return port !== undefined && !isInUse(Number(port));
}

/**
 * Started by root, the workers run as nobody, who cannot pass through closed folders: then the files lie beside the embedded database's
 * of such a case, where nobody but root can have put something before.
 */
async function workFolder(folder: string): Promise<string> {
  const isRoot = process.getuid?.() === 0;
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 16);
  const work = !isRoot || (await isOpen(folder)) ? join(folder, "nginx", "run") : join(closedHomeBase, `nginx-${hash}`);
  const pages = join(work, "pages");
  await mkdir(pages, { recursive: true, mode: 0o755 });
  for (const made of [join(folder, "nginx"), work, pages]) await chmod(made, 0o755).catch(() => {});
  await writeFile(join(pages, "unavailable.html"), unavailablePage, { mode: 0o644 });
  await writeFile(join(pages, "unavailable.json"), unavailableJson, { mode: 0o644 });
  return work;
}

/** Whether every user can pass through the folder and all above it. */
export async function isOpen(path: string): Promise<boolean> {
  for (let at = path; ; at = dirname(at)) {
    if (((await stat(at)).mode & 0o001) === 0) return false;
    if (at === dirname(at)) return true;
  }
}
