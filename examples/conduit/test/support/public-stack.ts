/** Conduit as `rungs up` runs it, with the servers of a rung, and requests to it whose paths go out as they are written. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readFile, rm } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const bin = fileURLToPath(new URL("../../../../packages/operator/bin/rungs.mjs", import.meta.url));
const conduit = fileURLToPath(new URL("../../", import.meta.url));
const readyWithinMs = 55_000;

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface PublicStack {
  readonly url: string;
  readonly folder: string;
  readonly processes: readonly { readonly name: string; readonly role: string; readonly port: number | null }[];
  ask(path: string, headers?: Readonly<Record<string, string>>, method?: string, body?: string): Promise<RawAnswer>;
  /** Runs a command of `rungs` on it; gives what it printed. */
  run(...args: string[]): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }>;
  stop(): Promise<void>;
}

/** Starts it on a free port with fresh data. */
export async function startPublicStack(args: readonly string[]): Promise<PublicStack> {
  const folder = await mkdtemp(join(tmpdir(), "conduit-stack-"));
  await chmod(folder, 0o755);
  const environment = { ...process.env, DATABASE_URL: undefined, REDIS_URL: undefined, CACHE_URL: undefined };
  const start = (words: readonly string[]) =>
    spawn(process.execPath, [bin, ...words, "--dir", folder], {
      cwd: conduit,
      env: environment,
      stdio: ["ignore", "pipe", "pipe"],
    });
  const launcher = start(["up", "--json", "--port", "0", ...args]);
  let output = "";
  const ended = once(launcher, "exit");
  launcher.stderr.setEncoding("utf8").on("data", (text) => {
    output += text;
  });
  const line = await new Promise<{ app: string; processes: PublicStack["processes"] }>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`not ready: ${output}`)), readyWithinMs);
    launcher.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      const first = output.split("\n").find((each) => each.startsWith('{"ready"'));
      if (first === undefined) return;
      clearTimeout(timer);
      resolve(JSON.parse(first));
    });
    launcher.once("exit", (code) => reject(new Error(`rungs up ended with ${code}: ${output}`)));
  }).catch((error) => {
    launcher.kill("SIGKILL");
    throw error;
  });
  const port = Number(new URL(line.app).port);
  return {
    url: line.app,
    folder,
    processes: line.processes,
    ask: (path, headers, method, body) => ask({ port, path, headers, method, body }),
    async run(...words) {
      const child = start(words);
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (text) => {
        stdout += text;
      });
      child.stderr.setEncoding("utf8").on("data", (text) => {
        stderr += text;
      });
      const [code] = (await once(child, "close")) as [number | null];
      return { code, stdout, stderr };
    },
    async stop() {
      if (launcher.exitCode === null && launcher.signalCode === null) launcher.kill("SIGTERM");
      await ended;
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The secret by which the edge tells keys and times. */
export async function inspectSecret(stack: PublicStack): Promise<string> {
  return (await readFile(join(stack.folder, "secrets", "purge-secret"), "utf8")).trim();
}

function ask(options: {
  readonly port: number;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly method?: string | undefined;
  readonly body?: string | undefined;
}): Promise<RawAnswer> {
  const { port, path, headers = {}, method = "GET", body } = options;
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, path, method, headers, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
        // A stream of events does not end by itself.
        if (String(response.headers["content-type"]).startsWith("text/event-stream")) response.destroy();
      });
      const done = () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text });
      response.on("end", done).on("close", done).on("error", done);
    });
    asked.setTimeout(10_000, () => asked.destroy(new Error(`${method} ${path} was not answered`)));
    asked.on("error", reject);
    asked.end(body);
  });
}
