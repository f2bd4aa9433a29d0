/** `rungs up`: starts the app with the real servers of its rung, and keeps them running until it is stopped. */
import type { ArgsDef } from "citty";
import type { Command, CommandContext } from "../command.ts";
import { watchParent } from "../stack/process/parent.ts";
import { ensurePrograms } from "../stack/process/programs.ts";
import { type Stack, startStack } from "../stack/stack.ts";
import type { StackPlan } from "../stack/stack-plan.ts";
import { planOf, startFlags } from "./stack/common.ts";
import { plannedParts, summaryOf } from "./stack/planned-parts.ts";

const flags = {
  ...startFlags,
  processes: { type: "string", valueHint: "n", description: "Web processes, 1 to 256 (default: the rung's)" },
  balancer: { type: "enum", options: ["nginx", "haproxy"], description: "Load balancer (default: the rung's)" },
  workers: {
    type: "string",
    valueHint: "n",
    description: "Processes for handlers alone, 1 to 256 (env RUNGS_WORKERS; default: the rung's)",
  },
  queue: {
    type: "enum",
    options: ["rabbitmq", "kafka"],
    description: "At rung 5: the message broker to start (default rabbitmq; Kafka from KAFKA_HOME)",
  },
  replication: {
    type: "enum",
    options: ["synchronous", "strict", "asynchronous"],
    description: "From rung 4 on: what a commit waits for (default synchronous: a second server, while there is one)",
  },
  regions: {
    type: "string",
    valueHint: "names",
    description: "At rung 5: several regions on this machine, e.g. eu,us; the first one leads",
  },
  "distance-ms": {
    type: "string",
    valueHint: "n",
    description: "With --regions: between two of them, there and back, 0 to 2000 (default 0)",
  },
  leaders: {
    type: "enum",
    options: ["first", "spread"],
    description: "With --regions: where new shards are led from (default first: all in the first region)",
  },
  "dry-run": { type: "boolean", description: "Print what would start, and start nothing" },
} satisfies ArgsDef;

/** The command. */
export const up: Command = {
  definition: {
    meta: { name: "up", description: "Start the app of this folder with the servers of a rung; Ctrl-C stops it all" },
    args: flags,
  },
  examples: [
    ["rungs up --rung 2", "nginx, four web processes, Redis and the database"],
    ["rungs up --rung 2 --port 8080 --processes 2", "the same, smaller and elsewhere"],
    ["rungs up --rung 2 --balancer haproxy", "another load balancer"],
    ["rungs up --rung 3", "the same with a shared cache, and Varnish in front"],
    ["rungs up --rung 4", "the same on PostgreSQL with two followers and fail-over"],
    ["rungs up --rung 4 --shards 2", "two such shards"],
    ["rungs up --rung 5", "the same with RabbitMQ, and workers for the handlers"],
    ["rungs up --rung 5 --queue kafka --workers 4", "with Kafka, and more workers"],
    ["rungs up --rung 5 --regions eu,us --distance-ms 80", "two regions, 80 ms apart, behind GeoDNS"],
    ["rungs up --rung 2 --dry-run", "what would start"],
    ["rungs up --rung 2 --json", "one line of JSON when it is ready"],
  ],
  endsBySignal: true,
  async run(values, context) {
    const plan = await planOf(values, context);
    if (values.isSet("dry-run")) return showPlan(plan, context);
    await ensurePrograms(plan.programs, context, values.isSet("install"));
    await keepUp(plan, context);
  },
};

async function keepUp(plan: StackPlan, context: CommandContext): Promise<void> {
  const { output, environment, signal } = context;
  const ended = new AbortController();
  const either = AbortSignal.any([signal, ended.signal]);
  const parent = watchParent(environment, () => ended.abort());
  try {
    const since = performance.now();
    output.line(`Starting ${plan.app.name} at rung ${plan.rung}: ${summaryOf(plan)}.\n`);
    const onProgress = (text: string) => output.line(`  ${text}`);
    const stack = await startStack({ plan, environment, signal: either, onProgress });
    await tellReady(stack, performance.now() - since, context);
    await untilAsked(stack, either);
    output.line("\nStopping ...");
    const errors = await stack.stop();
    for (const error of errors) output.remark(error.message);
    output.line("Stopped.");
  } catch (error) {
    // A start that was broken off by whoever started it is no failure.
    if (!either.aborted) throw error;
  } finally {
    parent.stop();
  }
}

async function tellReady(stack: Stack, ms: number, { output, signal }: CommandContext): Promise<void> {
  const { app, dashboard, rung, processes, folder, regions } = await stack.status(signal);
  output.json({
    ready: true,
    ...{ app, dashboard, rung },
    ...(regions.length === 0 ? {} : { regions }),
    processes: processes.map(({ name, role, region, pid, port }) => ({
      ...{ name, role, pid, port },
      ...(region === undefined ? {} : { region }),
    })),
  });
  output.line(`\nReady after ${(ms / 1_000).toFixed(1)} s.\n`);
  if (regions.length === 0) output.line(`  Open   ${app}`);
  else for (const { name, app: address } of regions) output.line(`  Open   ${address} (${name})`);
  output.line(`  Files  ${folder} (logs in logs/, settings of the servers beside it)\n`);
  const web = regions[0] === undefined ? "web" : `${regions[0].name}-web`;
  const further = regions.length === 0 ? "" : ", rungs regions";
  output.line(
    `Ctrl-C stops it. In another terminal: rungs status, rungs logs, rungs scale ${web} N, rungs restart ${web}${further}.`,
  );
}

/** Until a signal, `rungs down`, or the end of npm. */
async function untilAsked(stack: Stack, signal: AbortSignal): Promise<void> {
  const aborted = new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
  // Neither a promise nor a timer of a server keeps Node alive by itself.
  const keepAlive = setInterval(() => {}, 2 ** 30);
  await Promise.race([aborted, stack.downAsked]);
  clearInterval(keepAlive);
}

function showPlan(plan: StackPlan, { output }: CommandContext): void {
  const rows = plannedParts(plan);
  output.json({ rung: plan.rung, folder: plan.folder, app: plan.app.app, parts: rows });
  output.line(`${plan.app.name} at rung ${plan.rung}, in ${plan.folder}:\n`);
  output.table({
    head: ["PART", "NUMBER", "WHAT", "NEEDS"],
    right: [1],
    rows: rows.map(({ part, number, what, needs }) => [part, String(number), what, needs.join(", ") || "-"]),
  });
  output.line("\nNothing was started.");
}
