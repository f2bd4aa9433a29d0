/**
 * Conduit at rung 2 with 1, 2 and 4 web processes behind nginx, beside as many bare Fastify processes behind a bare nginx, on one database
 * in one run; and how long `rungs up` takes until it is ready.
 *
 * `npm run bench:rung2 -- --people 500 --seconds 2 --rounds 3`. The two take turns within each round. This process is the client: on two
 * cores it takes its share of them, as the database does, so more processes than cores show what they cost and not what they bring.
 */

import { rm } from "node:fs/promises";
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { seededRandom } from "rungs";
import { closedLoop, type LoadResult, requestBytes } from "./load-client.ts";
import { type BareStack, startBareStack } from "./stack/bare-stack.ts";
import {
  benchFolder,
  median,
  print,
  register,
  type SeededDatabase,
  seededDatabase,
  startStack,
} from "./stack/launcher.ts";

const { values } = parseArgs({
  options: {
    people: { type: "string", default: "500" },
    seconds: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    processes: { type: "string", default: "1,2,4" },
  },
});
const durationMs = Number(values.seconds) * 1_000;
const rounds = Number(values.rounds);
const connections = 32;
const readers = 50;

/** The first start makes the databases, the second finds them. */
async function printStarts(): Promise<void> {
  const folder = await benchFolder();
  print("\nrungs up --rung 2 --processes 4, with its own database and Redis");
  for (const which of ["first", "second"]) {
    const stack = await startStack({ flags: ["--rung", "2", "--processes", "4"], folder });
    print(`  ${which} start: ready after ${(stack.readyMs / 1_000).toFixed(1)} s`);
    await stack.stop({ isKept: true });
  }
  await rm(folder, { recursive: true, force: true });
}

/** Sessions that the bare server finds: those of rung 1 are rows. */
async function tokensInDatabase({ url }: SeededDatabase): Promise<string[]> {
  const stack = await startStack({ flags: ["--rung", "1"], databaseUrl: url });
  try {
    return await registerAll(stack.port, "bare");
  } finally {
    await stack.stop();
  }
}

async function registerAll(port: number, prefix: string): Promise<string[]> {
  const tokens: string[] = [];
  // One after the other: password hashing is bounded, and refuses a crowd.
  for (let index = 0; index < readers; index++) tokens.push(await register(port, `${prefix}${index}`));
  return tokens;
}

async function compare(processes: number, bareTokens: readonly string[]): Promise<void> {
  const stack = await startStack({
    flags: ["--rung", "2", "--processes", String(processes)],
    databaseUrl: database.url,
  });
  let bare: BareStack | undefined;
  try {
    bare = await startBareStack(processes, database.connection);
    const tokens = await registerAll(stack.port, `reader${processes}x`);
    const sides = [
      { port: bare.port, tokens: bareTokens },
      { port: stack.port, tokens },
    ] as const;
    for (const name of Object.keys(routes) as (keyof typeof routes)[]) await compareRoute(name, processes, sides);
  } finally {
    await bare?.stop();
    await stack.stop();
  }
}

interface Side {
  readonly port: number;
  readonly tokens: readonly string[];
}

async function compareRoute(name: keyof typeof routes, processes: number, sides: readonly [Side, Side]): Promise<void> {
  const next = sides.map((side) => requestsOf(name, side));
  const run = (index: number, forMs: number) =>
    closedLoop({
      port: sides[index]?.port as number,
      next: next[index] as () => Buffer,
      connections,
      durationMs: forMs,
    });
  // Compiled code and filled pools and caches first.
  for (const index of [0, 1]) await run(index, 1_500);
  const results: [LoadResult, LoadResult][] = [];
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? [0, 1] : [1, 0];
    const both: LoadResult[] = [];
    for (const index of order) both[index] = await run(index, durationMs);
    results.push(both as [LoadResult, LoadResult]);
  }
  const perSecond = (index: 0 | 1) => median(results.map((both) => both[index].perSecond)).toFixed(0);
  const ratio = median(results.map(([bare, conduit]) => conduit.perSecond / bare.perSecond)).toFixed(2);
  const failures = results.reduce((sum, both) => sum + both[0].failures + both[1].failures, 0);
  print(
    `  ${String(processes).padStart(9)}  ${name.padEnd(33)}  ${perSecond(0).padStart(19)}/s ${perSecond(1).padStart(7)}/s ${ratio.padStart(7)} ${String(failures).padStart(10)}`,
  );
}

const random = seededRandom(1);
const pick = <V>(list: readonly V[]) => list[Math.floor(random.next() * list.length)] as V;
/** Popular articles are read far more often than others. */
const popular = () => database.slugs[Math.floor(database.slugs.length ** random.next()) - 1] as string;

const routes = {
  "GET /api/articles/:slug": () => ({ method: "GET" as const, path: `/api/articles/${popular()}`, isSignedIn: false }),
  "GET /api/user": () => ({ method: "GET" as const, path: "/api/user", isSignedIn: true }),
  "POST /api/articles/:slug/favorite": () => ({
    method: "POST" as const,
    path: `/api/articles/${pick(database.slugs)}/favorite`,
    isSignedIn: true,
  }),
};

function requestsOf(name: keyof typeof routes, { port, tokens }: Side): () => Buffer {
  const requests = Array.from({ length: 20_000 }, () => {
    const { isSignedIn, ...request } = routes[name]();
    return requestBytes({ ...request, port, headers: isSignedIn ? { authorization: `Token ${pick(tokens)}` } : {} });
  });
  let at = 0;
  return () => requests[at++ % requests.length] as Buffer;
}

print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}`);
await printStarts();
const database = await seededDatabase(values.people);
try {
  const bareTokens = await tokensInDatabase(database);
  print(`\n${connections} connections, medians of ${rounds} rounds; CPU is shared with the client and the database`);
  print("  processes  route                              bare nginx + Fastify   Conduit   ratio   failures");
  for (const processes of values.processes.split(",").map(Number)) await compare(processes, bareTokens);
} finally {
  await database.stop();
}
