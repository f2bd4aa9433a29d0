/** Starts the fake provider as a child that ends with this process, however this process ends. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { type FakeProviderClient, fakeProviderClient } from "../drivers/fake-provider-client.ts";

export interface StartedFakeProvider {
  readonly url: string;
  readonly client: FakeProviderClient;
  /** What Conduit's settings must say to use it. */
  readonly settings: Readonly<
    Record<"PAYMENT_PROVIDER_URL" | "PAYMENT_PROVIDER_KEY" | "PAYMENT_WEBHOOK_SECRET", string>
  >;
  readonly child: ChildProcess;
  /** Ends it and waits for its end. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

export interface StartFakeProviderOptions {
  /** Where it keeps its charges; default: nowhere. */
  readonly dataFolder?: string;
  /** Further flags, such as `["--tricks"]`. */
  readonly flags?: readonly string[];
  /** Secrets and port of an earlier start, to come back as the same; default: new ones. */
  readonly settings?: StartedFakeProvider["settings"];
}

const startTimeoutMs = 20_000;

/** Resolves when it is ready. Raises with its own words when it is not within 20 s. */
export async function startFakeProvider(options: StartFakeProviderOptions = {}): Promise<StartedFakeProvider> {
  const { dataFolder, flags = [], settings } = options;
  const apiKey = settings?.PAYMENT_PROVIDER_KEY ?? `fake_${randomBytes(24).toString("base64url")}`;
  const webhookSecret = settings?.PAYMENT_WEBHOOK_SECRET ?? `fakesec_${randomBytes(24).toString("base64url")}`;
  const program = fileURLToPath(new URL("./main.ts", import.meta.url));
  const port = settings === undefined ? "0" : new URL(settings.PAYMENT_PROVIDER_URL).port;
  const data = dataFolder === undefined ? [] : ["--data", dataFolder];
  const child = spawn(process.execPath, [program, "--end-with-stdin", "--port", port, ...data, ...flags], {
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, PROVIDER_API_KEY: apiKey, PROVIDER_WEBHOOK_SECRET: webhookSecret },
  });
  // The pipe breaks when the child ends first.
  child.stdin.on("error", () => {});
  const url = await readyUrl(child);
  return {
    url,
    child,
    client: fakeProviderClient({ url, apiKey, webhookSecret }),
    settings: { PAYMENT_PROVIDER_URL: url, PAYMENT_PROVIDER_KEY: apiKey, PAYMENT_WEBHOOK_SECRET: webhookSecret },
    async stop(signal = "SIGTERM") {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill(signal);
      await ended;
    },
  };
}

function readyUrl(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    let output = "";
    const fail = (why: string) => {
      clearTimeout(timer);
      child.kill("SIGKILL");
      reject(new Error(`The fake payment provider ${why}:\n${output}`));
    };
    const timer = setTimeout(() => fail(`was not ready within ${startTimeoutMs} ms`), startTimeoutMs);
    child.once("error", (error) => fail(`could not be started: ${error.message}`));
    child.once("exit", (code) => fail(`ended with code ${code}`));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        output = (output + text).slice(-4_000);
        const url = /ready at (http:\S+)/.exec(output)?.[1];
        if (url === undefined) return;
        clearTimeout(timer);
        resolve(url);
      });
    }
  });
}
