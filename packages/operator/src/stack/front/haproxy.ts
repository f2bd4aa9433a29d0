/** HAProxy as the balancer of a stack. Places are drained, and rules replaced, through its runtime interface, without a reload. */
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { controlPath } from "../control/control-path.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { haproxyConfig } from "./haproxy-config.ts";
import { unavailableMap } from "./haproxy-frontends.ts";
import { backendGroups, routingMap } from "./haproxy-services.ts";
import { command, isRunning, replaceMap } from "./haproxy-socket.ts";
import type { BalancerComponent, BalancerOptions } from "./nginx.ts";

/** A check every 500 ms, and one success is enough. */
const settledWithinMs = 5_000;

/** Makes the component; the files are written when it starts. */
export function haproxyComponent(options: BalancerOptions): BalancerComponent {
  const { program, folder, logFolder, needs, environment, probe, isInUse, balancer } = options;
  const { name = "balancer", region, workers: threads = 2 } = options;
  const groups = backendGroups(balancer);
  const inUse = new Set<string>();
  const home = join(folder, "haproxy");
  const [configFile, rules, answers] = [join(home, "haproxy.cfg"), join(home, "groups.map"), join(home, "answers.map")];
  const socket = controlPath(home);
  // In the foreground, with a master that takes SIGUSR2 for a reload.
  const args = ["-W", "-db", "-f", configFile];
  const haproxy = new ManagedProcess({
    ...{ name, role: "balancer", command: program, args, folder, logFolder, probe },
    environment: { PATH: environment["PATH"], LC_ALL: "C", TZ: environment["TZ"] },
    port: balancer.listen.port,
    stopTimeoutMs: 3_000,
  });
  /** For the next reload or crash, which starts from the file; the one that runs is told as well. */
  const writeConfig = () => writeFile(configFile, haproxyConfig(balancer, { socket, answers, inUse, rules, threads }));
  let written: readonly string[] = [];
  const toldRules = async () => (balancer.split === undefined ? [] : routingMap((await options.rules?.()) ?? []));
  const writeRules = (lines: readonly string[]) => writeFile(rules, lines.map((line) => `${line}\n`).join(""));
  const inTurn = oneAfterTheOther();
  const backendOf = (place: string) =>
    groups.find(({ servers }) => servers.some((server) => server.name === place))?.name as string;
  return {
    name,
    role: "balancer",
    ...(region === undefined ? {} : { region }),
    needs,
    plan: [program, ...args].join(" "),
    async start(signal) {
      inUse.clear();
      for (const place of groups.flatMap(({ servers }) => servers)) if (isInUse(place.port)) inUse.add(place.name);
      await mkdir(home, { recursive: true, mode: 0o700 });
      await chmod(home, 0o700);
      await writeFile(answers, unavailableMap());
      await writeConfig();
      written = await toldRules();
      await writeRules(written);
      await haproxy.start(signal);
    },
    stop: () => haproxy.stop(),
    lose: () => haproxy.lose(),
    processes: () => haproxy.report(),
    async settled(place) {
      inUse.add(place);
      await inTurn(writeConfig);
      const backend = backendOf(place);
      const until = performance.now() + settledWithinMs;
      while (performance.now() < until) {
        // Said again each time: one that crashed may have read the file before it was written.
        await command(socket, `set server ${backend}/${place} state ready`);
        if (await isRunning(socket, { backend, place })) return;
        await sleep(50);
      }
    },
    async leaving(place) {
      inUse.delete(place);
      await inTurn(writeConfig);
      await command(socket, `set server ${backendOf(place)}/${place} state maint`);
    },
    reroute: () =>
      inTurn(async () => {
        const lines = await toldRules();
        if (lines.join("\n") === written.join("\n")) return;
        await writeRules(lines);
        await replaceMap(socket, { file: rules, lines });
        written = lines;
      }),
  };
}

/** Groups change at the same time, and write the same files. */
function oneAfterTheOther() {
  let last: Promise<unknown> = Promise.resolve();
  return (work: () => Promise<void>): Promise<void> => {
    const next = last.then(work);
    last = next.catch(() => {});
    return next;
  };
}
