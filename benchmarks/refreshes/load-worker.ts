/** The load of `bench:refreshes`, in a thread of its own: the main one asks the database and writes meanwhile. */
import { once } from "node:events";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";
import { seededRandom } from "rungs";
import { closedLoop, type LoadResult, requestBytes } from "../load-client.ts";

/** Who asks for what. Either one after the other of `paths`, or visitors who read the front page and articles. */
export interface Load {
  readonly port: number;
  readonly connections: number;
  readonly durationMs: number;
  readonly requestsMax?: number;
  /** In turn; as often as they are there. */
  readonly paths?: readonly string[];
  /** Takes gzip, as browsers do; for servers that say how long it is. */
  readonly takesGzip?: boolean;
  readonly visitors?: {
    readonly number: number;
    /** Cookies of real sessions; the visitors that are signed in share them. */
    readonly sessions: readonly string[];
    readonly signedInShare: number;
    /** Most read first. */
    readonly slugs: readonly string[];
  };
}

/** What came of it. */
export interface Loaded extends LoadResult {
  readonly statuses: Readonly<Record<number, number>>;
  readonly elapsedMs: number;
  /** Visitors that asked at least once. */
  readonly visitors: number;
}

/** Runs the load in a new thread. */
export async function runLoad(load: Load): Promise<Loaded> {
  const worker = new Worker(new URL(import.meta.url), { workerData: load });
  const [loaded] = (await once(worker, "message")) as [Loaded];
  await worker.terminate();
  return loaded;
}

async function run(load: Load): Promise<Loaded> {
  const statuses: Record<number, number> = {};
  const seen = new Set<number>();
  const started = performance.now();
  const result = await closedLoop({
    ...load,
    next: load.visitors === undefined ? inTurn(load) : visits(load, load.visitors, seen),
    onAnswer: ({ status }) => {
      statuses[status] = (statuses[status] ?? 0) + 1;
    },
  });
  return { ...result, statuses, elapsedMs: performance.now() - started, visitors: seen.size };
}

const userAgent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

function inTurn({ port, paths = ["/"], takesGzip = false }: Load): () => Buffer {
  const headers = { "user-agent": userAgent, ...(takesGzip ? { "accept-encoding": "gzip" } : {}) };
  const requests = paths.map((path) => requestBytes({ method: "GET", path, port, headers }));
  let at = 0;
  return () => requests[at++ % requests.length] as Buffer;
}

/** Half of them read the front page, four tenths an article's page and one tenth its answer for programs. */
function visits({ port }: Load, visitors: NonNullable<Load["visitors"]>, seen: Set<number>): () => Buffer {
  const random = seededRandom(7);
  const { number, sessions, signedInShare, slugs } = visitors;
  const signedIn = Math.round(number * signedInShare);
  return () => {
    const visitor = Math.floor(random.next() * number);
    seen.add(visitor);
    const what = random.next();
    // Of n articles, the first is read as often as the second and third together, and so on.
    const slug = slugs[Math.floor(slugs.length ** random.next()) - 1] ?? slugs[0];
    const path = what < 0.5 ? "/" : what < 0.9 ? `/article/${slug}` : `/api/articles/${slug}`;
    const address = `10.${visitor >> 16}.${(visitor >> 8) & 255}.${visitor & 255}`;
    const cookie = visitor < signedIn ? { cookie: sessions[visitor % sessions.length] as string } : {};
    const headers = { "user-agent": userAgent, "x-forwarded-for": address, ...cookie };
    return requestBytes({ method: "GET", path, port, headers });
  };
}

if (!isMainThread) parentPort?.postMessage(await run(workerData as Load));
