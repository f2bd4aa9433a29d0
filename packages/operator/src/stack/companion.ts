/**
 * A program of the app's own that runs once beside all web processes, such as a stand-in for a service of somebody else's.
 *
 * It prints one line of JSON when it is ready: an object of environment variables for the web processes. They are kept, and given to its
 * next start, so that it can come back under the same address with the same secrets.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Component } from "./component.ts";
import { ManagedProcess } from "./process/managed-process.ts";
import { writePrivate } from "./process/secrets.ts";

export interface CompanionOptions {
  readonly name: string;
  /** Its file, run by this Node. */
  readonly program: string;
  readonly appFolder: string;
  readonly secretFolder: string;
  readonly logFolder: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** A component with the variables it gave. */
export interface CompanionComponent extends Component {
  /** Once it has started. */
  provided(): Readonly<Record<string, string>>;
}

/** Makes the component. */
export function companionComponent(options: CompanionOptions): CompanionComponent {
  const { name, program, appFolder, secretFolder, logFolder } = options;
  const environment: Record<string, string | undefined> = { ...options.environment };
  const keptIn = join(secretFolder, `companion-${name}.json`);
  let provided: Readonly<Record<string, string>> = {};
  let isReady = false;
  const child: ManagedProcess = new ManagedProcess({
    name,
    role: "companion",
    command: process.execPath,
    args: [program],
    folder: appFolder,
    environment,
    port: null,
    logFolder,
    stopTimeoutMs: 5_000,
    onLine(line) {
      const variables = variablesOf(line);
      if (variables === undefined) return child.log.write(`${line}\n`);
      isReady = true;
      provided = variables;
      Object.assign(environment, variables);
      void writePrivate(keptIn, JSON.stringify(variables)).catch(() =>
        child.log.note("its variables could not be kept"),
      );
    },
    async probe() {
      if (!isReady) throw new Error("It has not said its variables yet.");
    },
    onChange(state) {
      if (state === "restarting") isReady = false;
    },
  });
  return {
    name,
    role: "companion",
    needs: [],
    plan: `${process.execPath} ${program}`,
    async start(signal) {
      Object.assign(environment, JSON.parse(await readFile(keptIn, "utf8").catch(() => "{}")));
      await child.start(signal);
    },
    stop: () => child.stop(),
    processes: () => child.report().map((report) => ({ ...report, port: portIn(provided) })),
    provided: () => provided,
  };
}

/** The port of the first address on loopback among its variables. */
function portIn(variables: Readonly<Record<string, string>>): number | null {
  for (const value of Object.values(variables)) {
    const port = /^[a-z]+:\/\/(?:127\.0\.0\.1|localhost):(\d{1,5})(?:\/|$)/.exec(value)?.[1];
    if (port !== undefined) return Number(port);
  }
  return null;
}

function variablesOf(line: string): Record<string, string> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
    const entries = Object.entries(value);
    const isFit = entries.every(([key, item]) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(key) && typeof item === "string");
    return isFit ? Object.fromEntries(entries) : undefined;
  } catch {
    return undefined;
  }
}
