/** What the commands about a stack have in common. */
import { resolve } from "node:path";
import type { ArgsDef } from "citty";
import {
  groupSizes,
  loadConfigFile,
  parseCommandLine,
  type ResolvedTopology,
  resolveTopology,
  type Topology,
  workersGroup,
} from "rungs/topology";
import type { CommandContext, Values } from "../../command.ts";
import { UsageError } from "../../exit-code.ts";
import { duration, type Output } from "../../output.ts";
import { wholeNumber } from "../../parse.ts";
import { readAppPackage } from "../../stack/app-package.ts";
import type { HandlerReport, ProcessReport, ShardReport } from "../../stack/component.ts";
import type { Replication } from "../../stack/databases/patroni-config.ts";
import { type RegionChoice, regionNames } from "../../stack/regions/planned-regions.ts";
import { type BrokerKind, planStack, type StackPlan } from "../../stack/stack-plan.ts";
import { flagWords, topologyFlags, topologyOf } from "../../topology-flags.ts";

const processesMax = 256;
/** Around the world and back takes light in glass 200 ms; more is for trying what breaks. */
const distanceMsMax = 2_000;

/** Flags of the commands that find a running stack. */
export const stackFlags = {
  dir: topologyFlags.dir,
  config: topologyFlags.config,
  json: { type: "boolean", description: "Print JSON for programs" },
} satisfies ArgsDef;

/** Flags of the commands that start one. */
export const startFlags = {
  ...topologyFlags,
  port: { type: "string", valueHint: "n", description: "Port to listen on (env PORT; default 3000; 0: any free one)" },
  host: { type: "string", valueHint: "address", description: "Address to listen on (env HOST; default 127.0.0.1)" },
  "log-level": {
    type: "string",
    valueHint: "level",
    description: "debug, info, warn, error or silent (env RUNGS_LOG_LEVEL)",
  },
  install: { type: "boolean", description: "Install missing servers without asking (Debian, Ubuntu; as root)" },
  json: { type: "boolean", description: "Print JSON for programs" },
} satisfies ArgsDef;

/** Folder of the stack that the flags, the environment and the settings file mean. */
export async function folderOf(values: Values, context: CommandContext): Promise<string> {
  const { dataDirectory } = await topologyOf(values, context);
  return resolve(context.folder, dataDirectory);
}

/** The plan of the stack to start, by flags, environment, settings file and the app's package.json. */
export async function planOf(values: Values, context: CommandContext, rung?: string): Promise<StackPlan> {
  const { environment, folder } = context;
  const resolved = await startTopology(values, context, rung);
  const topology = withWebFlags(resolved.topology, values);
  const regions = regionsOf(values);
  const replication = values.text("replication") as Replication | undefined;
  const broker = values.text("queue") as BrokerKind | undefined;
  const plan = planStack({
    topology,
    environment,
    ...(replication === undefined ? {} : { replication }),
    ...(broker === undefined ? {} : { broker }),
    ...(regions === undefined ? {} : { regions }),
    isChosen: (path) =>
      (path === "web.processes" && values.isSet("processes")) ||
      !/^(default|preset) ?/.test(resolved.sources.get(path) ?? "default"),
    app: await readAppPackage(folder),
    folder: resolve(folder, topology.dataDirectory),
  });
  if (replication === undefined || plan.clusters > 0) return plan;
  throw new UsageError("--replication has an effect only on databases with followers that are started here: --rung 4.");
}

async function startTopology(
  values: Values,
  { environment, folder, output }: CommandContext,
  rung?: string,
): Promise<ResolvedTopology> {
  const names = ["dir", "config", "shards", "strategy", "split", "rung", "port", "host", "workers", "log-level"];
  const given = names.flatMap((name) =>
    name === "rung" && rung !== undefined ? [`--rung=${rung}`] : flagWords(values, name),
  );
  const { flags, config } = parseCommandLine(given);
  const file = await loadConfigFile(folder, config);
  const resolved = resolveTopology({ ...(file === undefined ? {} : { file }), environment, flags });
  for (const warning of resolved.warnings) output.remark(warning);
  return resolved;
}

/** `--regions` and what belongs to it. Raises {@link UsageError} for what has no effect without it. */
function regionsOf(values: Values): RegionChoice | undefined {
  const text = values.text("regions");
  if (text === undefined) {
    const stray = ["distance-ms", "leaders"].find((name) => values.isSet(name));
    if (stray === undefined) return undefined;
    throw new UsageError(`--${stray} has an effect only with several regions: --regions eu,us`);
  }
  return {
    names: regionNames(text),
    roundTripMs: wholeNumber(values, { name: "distance-ms", min: 0, max: distanceMsMax, fallback: 0 }),
    isSpread: values.text("leaders") === "spread",
  };
}

/** `--processes` and `--balancer`, over what the settings say; several processes, or groups with routes, get nginx when no balancer is named. */
function withWebFlags(topology: Topology, values: Values): Topology {
  const { web } = topology;
  const processes = wholeNumber(values, { name: "processes", min: 1, max: processesMax, fallback: web.processes });
  const named = values.text("balancer") as "nginx" | "haproxy" | undefined;
  const isSplit = groupSizes(topology)
    .slice(1)
    .some(({ name }) => name !== workersGroup);
  const balancer = named ?? web.balancer ?? (processes > 1 || isSplit ? "nginx" : undefined);
  return { ...topology, web: { ...web, processes, balancer } };
}

/** A table of processes; with a column of regions where there are some. */
export function showProcesses(processes: readonly ProcessReport[], output: Output): void {
  const { colors } = output;
  const now = Date.now();
  const hasRegions = processes.some(({ region }) => region !== undefined);
  const before = hasRegions ? 1 : 0;
  output.table({
    head: ["NAME", "ROLE", ...(hasRegions ? ["REGION"] : []), "PID", "PORT", "STATE", "UP", "CRASHES"],
    right: [2, 3, 5, 6].map((column) => column + before),
    rows: processes.map(({ name, role, region, pid, port, state, startedAtMs, crashes }) => [
      name,
      role,
      ...(hasRegions ? [region ?? colors.dim("-")] : []),
      String(pid),
      port === null ? colors.dim("-") : String(port),
      state === "ready" ? colors.green(state) : colors.yellow(state),
      duration(now - startedAtMs),
      crashes === 0 ? colors.dim("0") : colors.red(String(crashes)),
    ]),
  });
}

/** A table of the shards' servers; nothing where none were started here. */
export function showShards(shards: readonly ShardReport[], output: Output): void {
  if (shards.length === 0) return;
  const { colors } = output;
  output.line("");
  const hasRegions = shards.some(({ members }) => members.some(({ region }) => region !== undefined));
  output.table({
    head: ["SHARD", "KEYS", "SERVER", ...(hasRegions ? ["REGION"] : []), "ROLE", "STATE", "TIMELINE", "LAG", "PORT"],
    right: [5, 6, 7].map((column) => column + (hasRegions ? 1 : 0)),
    rows: shards.flatMap(({ shard, placement, members }) =>
      members.map(({ name, region, role, state, timeline, lagBytes, port }, index) => [
        index === 0 ? String(shard) : "",
        index === 0 ? placement : "",
        name,
        ...(hasRegions ? [region ?? colors.dim("-")] : []),
        role === "leader" ? colors.green(role) : role,
        state === "running" || state === "streaming" ? state : colors.yellow(state),
        timeline === null ? colors.dim("-") : String(timeline),
        lagBytes === null ? colors.dim("-") : bytes(lagBytes),
        String(port),
      ]),
    ),
  });
}

/** A table of the handlers; nothing where no process runs one. */
export function showHandlers(handlers: readonly HandlerReport[], output: Output): void {
  if (handlers.length === 0) return;
  const { colors } = output;
  output.line("");
  output.table({
    head: ["HANDLER", "PROCESSES", "RUNNING", "WAITING", "DONE", "RETRIED", "DEAD"],
    right: [1, 2, 3, 4, 5, 6],
    rows: handlers.map(({ handler, processes, running, waiting, done, retried, dead }) => [
      handler,
      String(processes),
      String(running),
      waiting === null ? colors.dim("-") : String(waiting),
      String(done),
      String(retried),
      dead === 0 ? colors.dim("0") : colors.red(String(dead)),
    ]),
  });
}

function bytes(number: number): string {
  if (number < 1_024) return `${number} B`;
  return number < 1_048_576 ? `${Math.round(number / 1_024)} KiB` : `${(number / 1_048_576).toFixed(1)} MiB`;
}
