/**
 * What a refresh costs at rungs 1, 2 and 3: the front page and single articles, cold and warm, beside nginx and Varnish with static
 * files of the same bytes, with the database's statements for each thousand.
 *
 * `npm run bench:refreshes -- --people 500 --seconds 4 --rounds 3`. With `--requests 1000000` instead: so many visits of the front page
 * and popular articles at rung 3, by `--visitors 100000` from as many addresses, a tenth of them signed in, while `--writes` a second
 * change an article; it ends after `--minutes` if they are not all done then.
 */
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { get, type IncomingMessage } from "node:http";
import { cpus } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Loaded, runLoad } from "./refreshes/load-worker.ts";
import { countingSettings, countQueries } from "./refreshes/query-count.ts";
import { startStaticServers } from "./refreshes/static-servers.ts";
import { median, print, register, type StartedStack, seededDatabase, startStack } from "./stack/launcher.ts";

const { values } = parseArgs({
  options: {
    people: { type: "string", default: "500" },
    seconds: { type: "string", default: "4" },
    rounds: { type: "string", default: "3" },
    requests: { type: "string" },
    rungs: { type: "string", default: "1,2,3" },
    visitors: { type: "string", default: "100000" },
    accounts: { type: "string", default: "200" },
    "signed-in": { type: "string", default: "0.1" },
    writes: { type: "string", default: "1" },
    connections: { type: "string", default: "16" },
    minutes: { type: "string", default: "20" },
  },
});
const connections = Number(values.connections);
const coldArticles = 200;
const warmArticles = 100;
const flagsOf = (rung: number) => ["--rung", String(rung), ...(rung === 1 ? [] : ["--processes", "2"])];
const number = (value: number, digits = 0) =>
  value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });

print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}`);
const database = await seededDatabase(values.people, countingSettings);
const count = await countQueries(database.connection);
try {
  if (values.requests === undefined) for (const rung of values.rungs.split(",").map(Number)) await atRung(rung);
  else await millionRefreshes(Number(values.requests));
} finally {
  await count.close();
  await database.stop();
}

async function atRung(rung: number): Promise<void> {
  const stack = await startStack({ flags: flagsOf(rung), databaseUrl: database.url });
  try {
    await count.settle();
    const paths = database.slugs.slice(0, coldArticles).map((slug) => `/api/articles/${slug}`);
    print(`\nrung ${rung}`);
    const coldly = { port: stack.port, connections: 1, durationMs: 60_000 };
    show("GET / cold", await count.during(() => runLoad({ ...coldly, paths: ["/"], requestsMax: 1 })));
    show(
      "GET /api/articles/:slug cold",
      await count.during(() => runLoad({ ...coldly, paths, requestsMax: paths.length })),
    );
    if (rung === 3) return await besideStatic(stack, paths.slice(0, warmArticles));
    for (const [name, list] of [
      ["GET /", ["/"]] as const,
      ["GET /api/articles/:slug", paths.slice(0, warmArticles)] as const,
    ]) {
      await warm(stack.port, list);
      const rounds = [];
      for (let round = 0; round < Number(values.rounds); round++)
        rounds.push(await count.during(() => warm(stack.port, list)));
      show(`${name} warm`, middle(rounds));
    }
  } finally {
    await stack.stop();
  }
}

function warm(port: number, paths: readonly string[], takesGzip = false): Promise<Loaded> {
  return runLoad({ port, connections, durationMs: Number(values.seconds) * 1_000, paths, takesGzip });
}

/** As they come: what the CDN keeps compressed is compared with a file that is. */
async function bytesOf(port: number, path: string): Promise<Buffer> {
  const headers = { "accept-encoding": "gzip", "user-agent": "Mozilla/5.0" };
  const [response] = (await once(get({ port, path, headers, agent: false }), "response")) as [IncomingMessage];
  const parts: Buffer[] = [];
  for await (const part of response) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

/** In turns, so that a change of the machine's pace meets all. */
async function besideStatic(stack: StartedStack, articles: readonly string[]): Promise<void> {
  const files = { page: await bytesOf(stack.port, "/"), article: await bytesOf(stack.port, articles[0] as string) };
  const limit = await startStaticServers(files);
  try {
    for (const [name, paths, file] of [
      ["GET /", ["/"], "page"],
      ["GET /api/articles/:slug", articles, "article"],
    ] as const) {
      await warm(stack.port, paths, true);
      const [edge, varnish, nginx]: Measured[][] = [[], [], []];
      for (let round = 0; round < Number(values.rounds); round++) {
        edge?.push(await count.during(() => warm(stack.port, paths, true)));
        varnish?.push(await count.during(() => warm(limit.varnish, [`/${file}`], true)));
        nginx?.push(await count.during(() => warm(limit.nginx, [`/${file}`], true)));
      }
      show(`${name} edge`, middle(edge ?? []));
      show(`  static, Varnish, ${number(files[file].length)} B`, middle(varnish ?? []));
      show("  static, nginx", middle(nginx ?? []));
      const pace = (rounds: readonly Measured[] = []) => median(rounds.map(({ result }) => result.perSecond));
      print(
        `  edge is ${number(pace(edge) / pace(varnish), 2)} of Varnish's limit, ${number(pace(edge) / pace(nginx), 2)} of nginx's`,
      );
    }
  } finally {
    await limit.stop();
  }
}

interface Measured {
  readonly result: Loaded;
  readonly queries: number;
}

function middle(rounds: readonly Measured[]): Measured {
  const sorted = [...rounds].sort((a, b) => a.result.perSecond - b.result.perSecond);
  return sorted[Math.floor(sorted.length / 2)] as Measured;
}

function show(name: string, { result, queries }: Measured): void {
  const { requests, failures, perSecond, p50Ms, p99Ms } = result;
  const columns = [
    `${number(perSecond).padStart(8)} /s`,
    `p50 ${number(p50Ms, 2)} ms`.padStart(15),
    `p99 ${number(p99Ms, 2)} ms`.padStart(16),
    `${number((queries * 1_000) / requests, 1)} queries per 1,000`.padStart(26),
    `${failures} of ${number(requests)} failed`,
  ];
  print(`${name.padEnd(34)} ${columns.join("  ")}`);
}

async function millionRefreshes(requests: number): Promise<void> {
  // The client stands for a proxy in front, which says who asks.
  const config = join(database.folder, "refreshes.json");
  await writeFile(config, JSON.stringify({ web: { trustProxy: ["loopback"] } }));
  const stack = await startStack({ flags: [...flagsOf(3), "--config", config], databaseUrl: database.url });
  try {
    const tokens: string[] = [];
    for (let index = 0; index < Number(values.accounts); index++)
      tokens.push(await register(stack.port, `visitor${index}`));
    await count.settle();
    const writing = startWriting(stack.port, tokens[0] as string);
    const { result, queries } = await count.during(() =>
      runLoad({
        port: stack.port,
        connections,
        durationMs: Number(values.minutes) * 60_000,
        requestsMax: requests,
        visitors: {
          number: Number(values.visitors),
          sessions: tokens.map((token) => `session=${token}`),
          signedInShare: Number(values["signed-in"]),
          slugs: database.slugs,
        },
      }),
    );
    const writes = await writing.stop();
    print(
      `${number(result.requests)} refreshes by ${number(result.visitors)} visitors in ${number(result.elapsedMs / 1_000, 1)} s`,
    );
    print(`answers by status: ${JSON.stringify(result.statuses)}; writes meanwhile: ${JSON.stringify(writes)}`);
    show("all", { result, queries });
  } finally {
    await stack.stop();
  }
}

/** Somebody who likes popular articles and takes it back: each time pages and lists are purged. */
function startWriting(port: number, token: string): { stop(): Promise<Readonly<Record<number, number>>> } {
  const statuses: Record<number, number> = {};
  const perSecond = Number(values.writes);
  let isOver = perSecond === 0;
  let wake = () => {};
  const work = async () => {
    for (let at = 0; !isOver; at++) {
      const url = `http://127.0.0.1:${port}/api/articles/${database.slugs[(at >> 1) % 20]}/favorite`;
      const method = at % 2 === 0 ? "POST" : "DELETE";
      const status = await fetch(url, { method, headers: { authorization: `Token ${token}` } }).then(
        async (response) => (await response.arrayBuffer()) && response.status,
        () => 0,
      );
      statuses[status] = (statuses[status] ?? 0) + 1;
      await new Promise<void>((resolve) => {
        wake = resolve;
        setTimeout(resolve, 1_000 / perSecond);
      });
    }
  };
  const done = work();
  return {
    async stop() {
      isOver = true;
      wake();
      await done;
      return statuses;
    },
  };
}
