/** HAProxy as the balancer of a stack. Places are drained through its runtime interface, without a reload. */
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { controlPath } from "../control/control-path.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { backendName, haproxyAnswers, haproxyConfig } from "./haproxy-config.ts";
import type { BalancerComponent, BalancerOptions } from "./nginx.ts";

/** A check every 500 ms, and one success is enough. */
const settledWithinMs = 5_000;
const answerWithinMs = 2_000;

/** Makes the component; the files are written when it starts. */
export function haproxyComponent(options: BalancerOptions): BalancerComponent {
  const { program, folder, logFolder, needs, environment, probe, isInUse, balancer } = options;
  const inUse = new Set<string>();
  const configFile = join(folder, "haproxy", "haproxy.cfg");
  const socket = controlPath(join(folder, "haproxy"));
  // In the foreground, with a master that takes SIGUSR2 for a reload.
  const args = ["-W", "-db", "-f", configFile];
  const haproxy = new ManagedProcess({
    ...{ name: "balancer", role: "balancer", command: program, args, folder, logFolder, probe },
    environment: { PATH: environment["PATH"], LC_ALL: "C", TZ: environment["TZ"] },
    port: balancer.listen.port,
    stopTimeoutMs: 3_000,
  });
  const writeConfig = async () => {
    const answers = join(folder, "haproxy", "answers");
    await mkdir(answers, { recursive: true, mode: 0o700 });
    await chmod(dirname(configFile), 0o700);
    for (const [name, content] of Object.entries(haproxyAnswers())) await writeFile(join(answers, name), content);
    await writeFile(configFile, haproxyConfig(balancer, { socket, answers, inUse }));
  };
  return {
    name: "balancer",
    role: "balancer",
    needs,
    plan: [program, ...args].join(" "),
    async start(signal) {
      for (const { name, port } of balancer.servers) if (isInUse(port)) inUse.add(name);
      await writeConfig();
      await haproxy.start(signal);
    },
    stop: () => haproxy.stop(),
    processes: () => haproxy.report(),
    async settled(place) {
      inUse.add(place);
      // For the next reload or crash, which starts from the file.
      await writeConfig();
      await command(socket, `set server ${backendName}/${place} state ready`);
      const until = performance.now() + settledWithinMs;
      while (performance.now() < until) {
        if (/ (2) /.test(await stateOf(socket, place))) return;
        await sleep(50);
      }
    },
    async leaving(place) {
      inUse.delete(place);
      await writeConfig();
      await command(socket, `set server ${backendName}/${place} state maint`);
    },
    // Groups of services need nginx (`stack-plan.ts`): all requests are for the web processes.
    reroute: async () => {},
  };
}

/** The operational state of a place, as a number between blanks: 2 is running (HAProxy management guide, "show servers state"). */
async function stateOf(socket: string, place: string): Promise<string> {
  const lines = (await command(socket, `show servers state ${backendName}`)).split("\n");
  const fields = lines.map((line) => line.split(" ")).find((words) => words[3] === place);
  return ` ${fields?.[5] ?? ""} `;
}

function command(socket: string, line: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const connection = connect({ path: socket, signal: AbortSignal.timeout(answerWithinMs) });
    let answer = "";
    connection.setEncoding("utf8").on("data", (text) => {
      answer += text;
    });
    connection.once("error", reject);
    connection.once("end", () => resolve(answer));
    connection.write(`${line}\n`);
  });
}
