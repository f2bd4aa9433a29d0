/**
 * The fake provider beside all web processes of `rungs up`: prints the settings by which they reach it as one line of JSON, and tells
 * it where they are. Prints nothing of use in production, or when a provider is set.
 */
import { join } from "node:path";
import { hasPaymentSettings } from "../provider-setting.ts";
import { type StartedFakeProvider, startFakeProvider } from "./start.ts";

const names = ["PAYMENT_PROVIDER_URL", "PAYMENT_PROVIDER_KEY", "PAYMENT_WEBHOOK_SECRET"] as const;

async function main(): Promise<void> {
  const { RUNGS_DIR: folder = ".rungs", RUNGS_APP_URL: app, NODE_ENV: mode } = process.env;
  // What an earlier start gave comes back in the environment, and is no provider of somebody else's.
  const isOwn = (process.env["PAYMENT_PROVIDER_KEY"] ?? "fake_").startsWith("fake_");
  if (mode === "production" || (hasPaymentSettings(process.env) && !isOwn)) {
    process.stdout.write("{}\n");
    setInterval(() => {}, 2 ** 30);
    return;
  }
  const provider = await start(join(folder, "payment-provider"));
  const stop = () => void provider.stop().then(() => process.exit(0));
  process.once("SIGTERM", stop);
  process.once("SIGINT", stop);
  provider.child.once("exit", (code) => process.exit(code ?? 1));
  await provider.client.registerWebhook(`${app}/api/payments/webhook`);
  process.stdout.write(`${JSON.stringify(provider.settings)}\n`);
}

/** Under the settings of an earlier start where they still can be had, so that web processes need not learn new ones. */
async function start(dataFolder: string): Promise<StartedFakeProvider> {
  const kept = Object.fromEntries(names.map((name) => [name, process.env[name] ?? ""]));
  if (Object.values(kept).every((value) => value !== "")) {
    try {
      return await startFakeProvider({ dataFolder, settings: kept as StartedFakeProvider["settings"] });
    } catch {
      // Its port belongs to another program by now.
    }
  }
  return startFakeProvider({ dataFolder });
}

await main();
