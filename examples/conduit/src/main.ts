/** Starts Conduit: `npm start`, with `--help` for the flags. */
import { pino } from "pino";
import { createLifecycle, runUntilSignal } from "rungs";
import { startApp } from "rungs/app";
import { describeTopology, loadConfigFile, parseCommandLine, resolveTopology, rungOf } from "rungs/topology";
import conduit from "./app.ts";
import { runCommand } from "./command.ts";

const help = `Usage: npm start -- [flags]

  --port N          port to listen on (env PORT; default 3000; 0: any free one)
  --host ADDRESS    address to listen on (env HOST; default 127.0.0.1)
  --dir FOLDER      where the data lives (env RUNGS_DIR; default .rungs)
  --shards N        embedded databases (env RUNGS_SHARDS; default 1)
  --cache on|off    the cache tier (env RUNGS_CACHE; default on)
  --no-cache        the same as --cache off
  --log-level L     debug, info, warn, error or silent (env RUNGS_LOG_LEVEL; default warn)
  --config FILE     settings file (default rungs.config.ts, .mjs, .js or .json, if there)
  --rung N          start from the preset of a rung
  --show-config     print every setting and where it came from, and end
  --help            print this

DATABASE_URL=postgres://user@host/database uses a server of yours, version 15 or newer, instead of the embedded one.`;

async function main(): Promise<void> {
  const commandLine = parseCommandLine(process.argv.slice(2));
  if (commandLine.help) return print(help);
  const file = await loadConfigFile(process.cwd(), commandLine.config);
  const resolved = resolveTopology({
    ...(file === undefined ? {} : { file }),
    environment: process.env,
    flags: commandLine.flags,
  });
  if (commandLine.showConfig) return print(describeTopology(resolved).join("\n"));
  for (const warning of resolved.warnings) process.stderr.write(`${warning}\n`);
  const { topology } = resolved;
  // A person at a terminal is told what matters by the lines below; the log speaks up from warnings on unless asked.
  const level = resolved.sources.get("log.level") === "default" ? "warn" : topology.log.level;
  const log = pino({ level, redact: ["req.headers.authorization", "req.headers.cookie"] }, pino.destination(2));
  const lifecycle = createLifecycle({ log });
  const errors = await runUntilSignal(
    () => {
      print("Stopping ...");
      return lifecycle.stop();
    },
    {
      log,
      start: async () => {
        const app = await startApp(conduit, { topology, log, lifecycle });
        const data =
          app.dataDirectories.length > 0 ? app.dataDirectories.join("\n         ") : "on the server of DATABASE_URL";
        print(
          `\nConduit runs at rung ${rungOf(topology)}.\n\n  Open   ${app.address}\n  API    ${app.address}/api\n  Data   ${data}\n\nCtrl-C stops it.`,
        );
      },
    },
  );
  process.exitCode = errors.length > 0 ? 1 : 0;
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

await runCommand(main);
