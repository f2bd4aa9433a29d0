/** A real Varnish with the generated VCL, in front of a server of the test's own. */
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { varnishCdn } from "rungs/cdn/varnish";
import { varnishComponent } from "../../src/stack/front/varnish.ts";
import type { Edge } from "../../src/stack/front/varnish-config.ts";
import { findProgram } from "../../src/stack/process/find-program.ts";
import { expectOk } from "../../src/stack/process/http-probe.ts";
import { choosePorts } from "../../src/stack/process/ports.ts";

export interface EdgeAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

export interface AskOptions {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface TestEdge {
  readonly port: number;
  readonly purgePort: number;
  readonly secret: string;
  readonly folder: string;
  /** Requests that reached the origin, health probes left out. */
  readonly seen: { readonly method: string; readonly url: string; readonly headers: IncomingMessage["headers"] }[];
  /** What the origin answers; replace it. */
  answer: (request: IncomingMessage, response: ServerResponse) => void;
  /** A request whose path goes out as it is written. */
  ask(path: string, options?: AskOptions): Promise<EdgeAnswer>;
  purge(...keys: string[]): Promise<void>;
  stopOrigin(): Promise<void>;
  startOrigin(): Promise<void>;
  /** Waits until Varnish knows that the origin is there, or gone. */
  untilHealthy(isHealthy: boolean): Promise<void>;
  stop(): Promise<void>;
}

/** Headers of an answer that may be kept. */
export function shared(keys: string, seconds = 60): Record<string, string> {
  return {
    "cache-control": "public, max-age=0, must-revalidate",
    "cdn-cache-control": `max-age=${seconds}, stale-while-revalidate=5, stale-if-error=600`,
    xkey: `site ${keys}`,
    vary: "Cookie, Authorization",
    "content-type": "text/plain",
  };
}

/** Starts both. */
export async function startEdge(settings: Partial<Edge> = {}): Promise<TestEdge> {
  const folder = await mkdtemp(join(tmpdir(), "rungs-edge-"));
  const ports = await choosePorts(["public", "purge", "origin"], {});
  const port = ports["public"] as number;
  const purgePort = ports["purge"] as number;
  const secret = "s3cret-of-the-test";
  const seen: TestEdge["seen"] = [];
  let origin: Server | undefined;
  const edge: Edge = {
    origin: { host: "127.0.0.1", port: ports["origin"] as number },
    ...{ secret, trusted: [], files: ["/assets", "/media"], hidden: ["/metrics"], answerMs: 5_000 },
    ...settings,
  };
  const component = await varnishComponent({
    ...{ edge, folder, logFolder: folder, needs: [], environment: process.env, purgePort, megabytes: 32 },
    program: findProgram("varnishd", process.env) ?? "varnishd",
    listen: { host: "127.0.0.1", port },
    probe: (signal) => expectOk(`http://127.0.0.1:${port}/healthz`, signal),
  });
  const cdn = varnishCdn({ addresses: [`http://127.0.0.1:${purgePort}`], secret });
  const test: TestEdge = {
    ...{ port, purgePort, secret, folder, seen },
    answer: (_request, response) => response.end("hello"),
    ask: (path, options) => ask(port, path, options),
    purge: (...keys) => cdn.purge(keys),
    async startOrigin() {
      origin = createServer((asked, response) => {
        if (asked.url === "/healthz") return response.setHeader("cache-control", "no-store").end("ok");
        seen.push({ method: asked.method ?? "", url: asked.url ?? "", headers: asked.headers });
        test.answer(asked, response);
      });
      origin.listen(ports["origin"], "127.0.0.1");
      await once(origin, "listening");
    },
    async stopOrigin() {
      origin?.closeAllConnections();
      origin?.close();
      await once(origin as Server, "close");
    },
    async untilHealthy(isHealthy) {
      for (let tries = 0; tries < 200; tries++) {
        const { status } = await ask(port, "/healthz");
        if ((status === 200) === isHealthy) return;
        await sleep(50);
      }
      throw new Error(`Varnish did not see the origin as ${isHealthy ? "there" : "gone"}`);
    },
    async stop() {
      await component.stop();
      origin?.closeAllConnections();
      origin?.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
  await test.startOrigin();
  await component.start(AbortSignal.timeout(20_000));
  return test;
}

/** Node's own client, because `fetch` would tidy the path and refuse some headers. */
export function ask(
  port: number,
  path: string,
  { method = "GET", headers = {} }: AskOptions = {},
): Promise<EdgeAnswer> {
  return new Promise((resolve, reject) => {
    const asked = request({ host: "127.0.0.1", port, path, method, headers, agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("end", () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(parts).toString("latin1"),
        }),
      );
      response.on("error", reject);
    });
    asked.on("error", reject);
    asked.end();
  });
}
