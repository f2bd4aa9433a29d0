/** The program `rungs`. */
import type { Command } from "./command.ts";
import { exitCode } from "./exit-code.ts";
import { runCommandLine } from "./run.ts";

/** All commands. Each is loaded when it is named, so that a help or a mistake costs no database client. */
const root: Command = {
  definition: { meta: { name: "rungs", description: "Watch and operate an app of Rungs, at any rung" } },
  examples: [
    ["rungs dev", "the app of this folder, started again whenever a file changes"],
    ["rungs up --rung 2", "the app with the servers of a rung"],
    ["rungs status", "what runs"],
    ["rungs cache", "how much the cache takes"],
    ["rungs cdn", "how much the CDN takes"],
    ["rungs regions", "who leads where, at a stack with regions"],
    ["rungs shards", "which shard owns which keys, and how much that is"],
    ["rungs jobs", "how many jobs wait, run, and were given up"],
    ["rungs jobs --help", "what else can be done about them"],
  ],
  commands: {
    up: async () => (await import("./commands/up.ts")).up,
    dev: async () => (await import("./commands/dev.ts")).dev,
    status: async () => (await import("./commands/status.ts")).status,
    scale: async () => (await import("./commands/scale.ts")).scale,
    restart: async () => (await import("./commands/restart.ts")).restart,
    switchover: async () => (await import("./commands/switchover.ts")).switchover,
    logs: async () => (await import("./commands/logs.ts")).logs,
    down: async () => (await import("./commands/down.ts")).down,
    shards: async () => (await import("./commands/shards.ts")).shards,
    jobs: async () => (await import("./commands/jobs.ts")).jobs,
    cache: async () => (await import("./commands/cache.ts")).cache,
    cdn: async () => (await import("./commands/cdn.ts")).cdn,
    regions: async () => (await import("./commands/regions.ts")).regions,
    dns: async () => (await import("./commands/dns.ts")).dns,
  },
};

/** One Ctrl-C may arrive twice, from the terminal and from the bin that started this process: see `runUntilSignal`. */
const samePressMs = 300;

/** Runs `args` in this process and sets its exit code. The first signal asks the command to end, a later one ends it. */
export async function main(args: readonly string[]): Promise<void> {
  const stop = new AbortController();
  let askedAt: number | undefined;
  const ask = (reason: string) => {
    askedAt ??= performance.now();
    stop.abort(reason);
    if (performance.now() - askedAt > samePressMs) process.exit(exitCode.interrupted);
  };
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, ask);
  // Started by bin/rungs.mjs on another Node: the channel closes when that process was killed.
  const onDisconnect = () => ask("SIGTERM");
  process.on("disconnect", onDisconnect);
  const { stdin, stdout, stderr } = process;
  // `rungs jobs list | head`: whoever reads may have enough.
  stdout.on("error", () => ask("SIGTERM"));
  process.exitCode = await runCommandLine(root, args, {
    ...{ stdin, stdout, stderr },
    environment: process.env,
    folder: process.cwd(),
    signal: stop.signal,
  });
  // A command that was broken off may have left a statement under way, which the server ends by itself.
  if (stop.signal.aborted) process.exit();
  for (const signal of signals) process.off(signal, ask);
  process.off("disconnect", onDisconnect);
  if (process.connected) process.disconnect();
}
