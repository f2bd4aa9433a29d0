/** The program of one web process: the app's definition with the topology that the launcher gives it. */
import { pathToFileURL } from "node:url";
import { pino } from "pino";
import { type AppDefinition, ConfigError, createLifecycle, RungsError, runUntilSignal } from "rungs";
import { startApp } from "rungs/app";
import { resolveTopology } from "rungs/topology";
import { answerLauncher } from "./questions.ts";
import { type WebSettings, webSettingsVariable } from "./web-settings.ts";

async function main(): Promise<void> {
  const { app, name, topology: content } = JSON.parse(process.env[webSettingsVariable] ?? "{}") as WebSettings;
  if (app === undefined) {
    throw new ConfigError("CONFIG_INVALID", "This program is started by rungs up. Start your app with: rungs up");
  }
  delete process.env[webSettingsVariable];
  const { topology } = resolveTopology({ file: { name: "of the launcher", content } });
  const log = pino(
    { level: topology.log.level, base: { process: name }, redact: ["req.headers.authorization", "req.headers.cookie"] },
    pino.destination(2),
  );
  const lifecycle = createLifecycle({ log });
  const errors = await runUntilSignal(() => lifecycle.stop(), {
    log,
    start: async () => {
      const running = await startApp(await definitionIn(app), { topology, log, lifecycle });
      answerLauncher((question) => running.answerOperator(question));
    },
  });
  process.exitCode = errors.length > 0 ? 1 : 0;
}

async function definitionIn(file: string): Promise<AppDefinition<unknown>> {
  const { default: definition } = (await import(pathToFileURL(file).href)) as { default?: AppDefinition<unknown> };
  if (typeof definition?.name === "string" && Array.isArray(definition.services)) return definition;
  throw new ConfigError(
    "CONFIG_INVALID",
    `${file} has no app as its default export. Write: export default defineApp({ ... })`,
  );
}

await main().catch((error: unknown) => {
  const isForeseen = error instanceof RungsError;
  process.stderr.write(`${isForeseen ? error.message : error instanceof Error ? error.stack : String(error)}\n`);
  process.exitCode = 1;
});
