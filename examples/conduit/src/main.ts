/** Starts Conduit: `npm start`, with `--help` for the flags. */
import { join, resolve } from "node:path";
import { pino } from "pino";
import { createLifecycle, type Lifecycle, runUntilSignal } from "rungs";
import { startApp } from "rungs/app";
import { describeTopology, loadConfigFile, parseCommandLine, resolveTopology, rungOf } from "rungs/topology";
import conduit from "./app.ts";
import { runCommand } from "./command.ts";
import { type StartedFakeProvider, startFakeProvider } from "./payments/fake-provider/start.ts";
import { hasPaymentSettings } from "./payments/provider-setting.ts";

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

STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET, or PAYMENT_PROVIDER_URL, PAYMENT_PROVIDER_KEY and PAYMENT_WEBHOOK_SECRET, set the
payment provider of tips. Without them one that moves no money is started beside the app, unless NODE_ENV is "production".

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
        const provider = await playProvider(topology.dataDirectory, lifecycle);
        const environment = { ...process.env, ...provider?.settings };
        const app = await startApp(conduit, { topology, log, lifecycle, environment });
        await provider?.client.registerWebhook(`${app.address}/api/payments/webhook`);
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

/**
 * A payment provider that moves no money, so that tips can be tried at once; undefined in production and when a provider is
 * set. It ends with this process.
 */
async function playProvider(dataDirectory: string, lifecycle: Lifecycle): Promise<StartedFakeProvider | undefined> {
  if (process.env["NODE_ENV"] === "production" || hasPaymentSettings(process.env)) return undefined;
  const provider = await startFakeProvider({ dataFolder: join(resolve(dataDirectory), "payment-provider") });
  lifecycle.started("payment provider", () => provider.stop(), 5_000);
  return provider;
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

await runCommand(main);
