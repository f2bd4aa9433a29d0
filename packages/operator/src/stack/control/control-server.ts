/**
 * How commands talk to a running launcher: HTTP on a unix socket that only the launcher's user can open.
 *
 * `GET /status` answers the status. `POST /ask?of=all|one` takes a question to the app's processes as JSON and answers a list of
 * `{"process","answer"}` or `{"process","error"}`, see `questions.ts`. `POST /restart?what=NAME`, `POST /scale?group=NAME&processes=N`,
 * `POST /switchover?shard=N&to=REGION`, `POST /regions/ACTION?region=NAME` and `POST /down` answer lines of JSON as they go on: `{"progress":TEXT}`, and at last `{"done":STATUS}` or
 * `{"error":{"code","message"}}`. `GET /regions` answers the regions.
 */
import { chmodSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { ConfigError } from "rungs";
import { webGroup } from "rungs/topology";
import { problemOf } from "../../exit-code.ts";
import type { StackStatus } from "../component.ts";
import type { ProcessGroups } from "../groups/process-groups.ts";
import { changeRegions, lookAtRegions } from "../regions/region-control.ts";
import type { RegionOperations } from "../regions/region-operations.ts";

const processesMax = 256;
const questionBytesMax = 1024 * 1024;
const switchWithinMs = 40_000;

/** Listens. `down` is called once somebody asks for the end; the socket closes when the stack has stopped. */
export async function serveControl(
  path: string,
  stack: {
    readonly status: () => Promise<StackStatus>;
    readonly groups: ProcessGroups;
    readonly down: () => void;
    /** Absent: no databases that could be handed over were started here. */
    readonly switchOver?: (
      shard: number,
      options: { readonly to?: string | undefined; readonly signal: AbortSignal },
    ) => Promise<{ readonly from: string; readonly to: string }>;
    /** Absent: it has no regions. */
    readonly regions?: RegionOperations;
  },
): Promise<{ close(): Promise<void> }> {
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://control");
    const asked = `${request.method} ${url.pathname}`;
    if (asked === "GET /status") return void stack.status().then((status) => answer(response, 200, status));
    if (asked === "GET /regions") {
      return void lookAtRegions(stack.regions).then(
        (regions) => answer(response, 200, regions),
        (error: unknown) => answer(response, 409, { error: told(error) }),
      );
    }
    if (request.method === "POST" && url.pathname.startsWith("/regions/")) {
      const action = url.pathname.slice("/regions/".length);
      return tell(response, (progress) => changeRegions(stack.regions, { action, url, progress }));
    }
    if (asked === "POST /restart") {
      const what = url.searchParams.get("what") ?? webGroup;
      return follow(response, stack.status, (progress) => stack.groups.restart(what, progress));
    }
    if (asked === "POST /scale") {
      return follow(response, stack.status, async (progress) => {
        const group = url.searchParams.get("group") ?? webGroup;
        await stack.groups.scale(group, processesOf(url.searchParams.get("processes")), progress);
      });
    }
    if (asked === "POST /switchover") {
      return follow(response, stack.status, async (progress) => {
        if (stack.switchOver === undefined) throw nothingToSwitch();
        const shard = Number(url.searchParams.get("shard") ?? Number.NaN);
        const region = url.searchParams.get("to") ?? undefined;
        const signal = AbortSignal.timeout(switchWithinMs);
        const { from, to } = await stack.switchOver(shard, { to: region, signal });
        progress(`shard ${shard}: ${to} leads in place of ${from}`);
      });
    }
    if (asked === "POST /ask") {
      const of = url.searchParams.get("of") === "one" ? "one" : "all";
      return void questionIn(request).then(
        async (question) => answer(response, 200, await stack.groups.question(question, of)),
        () =>
          answer(response, 400, { error: { code: "CONFIG_INVALID", message: "The question is too long or no JSON." } }),
      );
    }
    if (asked === "POST /down") {
      return void stack.status().then((status) => {
        answer(response, 202, status);
        stack.down();
      });
    }
    answer(response, 404, { error: { code: "NOT_FOUND", message: `${asked} is nothing the launcher knows.` } });
  });
  // The folder's holder is this process, so a socket that is there is a dead launcher's.
  await rm(path, { force: true });
  const mask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(path, resolve);
    });
  } finally {
    process.umask(mask);
  }
  chmodSync(path, 0o600);
  return {
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(path, { force: true });
    },
  };
}

async function questionIn(request: IncomingMessage): Promise<unknown> {
  let text = "";
  for await (const part of request.setEncoding("utf8")) {
    text += part;
    if (text.length > questionBytesMax) throw new Error("too long");
  }
  return JSON.parse(text);
}

function nothingToSwitch(): ConfigError {
  return new ConfigError(
    "CONFIG_INVALID",
    "This stack has started no databases with followers; those of rung 4 are: rungs up --rung 4.",
  );
}

function processesOf(text: string | null): number {
  const value = /^\d{1,3}$/.test(text ?? "") ? Number(text) : 0;
  if (value >= 1 && value <= processesMax) return value;
  throw new ConfigError(
    "CONFIG_INVALID",
    `processes: expected an integer from 1 to ${processesMax}, got ${JSON.stringify(text)}.`,
  );
}

function follow(
  response: ServerResponse,
  status: () => Promise<StackStatus>,
  work: (progress: (text: string) => void) => Promise<void>,
): void {
  tell(response, async (progress) => {
    await work(progress);
    return status();
  });
}

/** Progress as it comes, and at last what the work gives or raises. */
function tell(response: ServerResponse, work: (progress: (text: string) => void) => Promise<unknown>): void {
  response.writeHead(200, { "content-type": "application/x-ndjson" });
  const line = (value: unknown) => response.write(`${JSON.stringify(value)}\n`);
  work((progress) => line({ progress }))
    .then((done) => line({ done }))
    .catch((error: unknown) => line({ error: told(error) }))
    .finally(() => response.end());
}

function told(error: unknown): { readonly code: string; readonly message: string } {
  return { code: problemOf(error).code, message: error instanceof Error ? error.message : String(error) };
}

function answer(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
}
