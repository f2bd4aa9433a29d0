/** Conduit for tests: the real app on its own embedded databases, in this process. */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pino } from "pino";
import { type RunningApp, startApp } from "rungs/app";
import type { Database } from "rungs/database";
import { resolveTopology } from "rungs/topology";
import conduit from "../../src/app.ts";
import type { Tables } from "../../src/schema.ts";

export interface TestConduit {
  readonly url: string;
  /** Where its data is. */
  readonly folder: string;
  readonly app: RunningApp<Tables>;
  /** Where the tables of the payments are: the app's database, unless they have one of their own. */
  readonly payments: Database<Tables>;
  stop(): Promise<void>;
}

export interface StartConduitOptions {
  /** Default 1. */
  readonly shards?: number;
  /** Default on. */
  readonly cache?: "on" | "off";
  /** Settings beside those of the process, e.g. of a payment provider. */
  readonly environment?: Readonly<Record<string, string>>;
}

/**
 * No request is refused for overload: these tests ask for much at once on machines that do much else beside, and what they ask is
 * not how much can be done. That has tests of its own.
 */
export const calmWeb = { web: { loopLatenessMsMax: 0 } } as const;

/** Starts Conduit on a free port with fresh data. */
export async function startConduit(options: StartConduitOptions = {}): Promise<TestConduit> {
  const folder = await mkdtemp(join(tmpdir(), "conduit-test-"));
  // The databases run as another user when the tests run as root.
  await chmod(folder, 0o755);
  const { topology } = resolveTopology({
    file: { name: "of the tests", content: calmWeb },
    flags: { port: "0", dir: folder, shards: String(options.shards ?? 1), cache: options.cache ?? "on" },
  });
  const app = await startApp(conduit, {
    topology,
    log: pino({ level: "fatal" }),
    environment: { ...process.env, ...options.environment },
  });
  return {
    url: app.address,
    folder,
    app,
    payments: app.context.db,
    async stop() {
      const errors = await app.stop();
      await rm(folder, { recursive: true, force: true });
      if (errors.length > 0) throw new AggregateError(errors, "Conduit did not stop cleanly");
    },
  };
}
