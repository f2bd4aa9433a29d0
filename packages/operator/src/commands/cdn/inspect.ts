/** `rungs cdn inspect`: one address as a visitor without an account gets it, and what the CDN knows of it. */
import { UnavailableError } from "rungs";
import type { Command, CommandContext } from "../../command.ts";
import { UsageError } from "../../exit-code.ts";
import { plain } from "../../output.ts";
import { cdnFlags, noCdn, stackEdge } from "./common.ts";

/** Reasons as the cache policy of the app writes them into `x-not-shared`. */
const reasons: Readonly<Record<string, string>> = {
  "route-not-shared": "the route does not opt in by config: { cache: { ... } }",
  method: "only answers to GET and HEAD are kept",
  "sets-cookie": "the answer sets a cookie",
  "has-credentials": "the request has a cookie or an Authorization header",
  "handler-says-private": "the handler says no-store or private",
  status: "answers with this status are not kept",
  "took-too-long": "the answer took over a second, so that a purge may have come before it",
  "too-many-keys": "the answer shows more than its keys may name",
};

/** What is known of an address. */
interface Inspection {
  readonly url: string;
  readonly status: number;
  /** hit, stale, miss or pass; null where no CDN said so. */
  readonly result: string | null;
  readonly ageSeconds: number | null;
  /** Until it is fetched again. */
  readonly ttlSeconds: number | null;
  readonly hits: number | null;
  readonly keys: readonly string[];
  /** What the CDN was told, and what browsers are told. */
  readonly cdnCacheControl: string | null;
  readonly cacheControl: string | null;
  readonly etag: string | null;
  /** Why it is not kept; null when it is. */
  readonly notKept: string | null;
}

/** The command. */
export const inspect: Command = {
  definition: {
    meta: { name: "inspect", description: "Ask for an address without an account, and tell what the CDN makes of it" },
    args: cdnFlags,
  },
  examples: [
    ["rungs cdn inspect /article/hello", "an address of the running stack: kept or not, age, keys, why not"],
    ["rungs cdn inspect https://example.com/ --json", "any address, by what its answer says"],
  ],
  wordsMax: 1,
  async run(values, context) {
    const [address] = values.words;
    if (address === undefined) throw new UsageError("Which address? Try: rungs cdn inspect /");
    const edge = await stackEdge(values, context);
    if (edge === undefined && !URL.canParse(address)) throw noCdn();
    const url = urlOf(address, edge?.apps[0]);
    // The secret goes to no other server.
    const isOurs = edge?.apps.some((app) => url.origin === new URL(app).origin) === true;
    const secret = isOurs ? edge?.secret : undefined;
    const inspection = await ask(url, secret, context.signal);
    context.output.json(inspection);
    show(inspection, context);
  },
};

function urlOf(address: string, app: string | undefined): URL {
  try {
    const url = new URL(address, app);
    if (url.protocol === "http:" || url.protocol === "https:") return url;
  } catch {
    // Told below.
  }
  throw new UsageError(`"${address}" is no address. Give a path such as /article/hello, or a whole URL.`);
}

async function ask(url: URL, secret: string | undefined, signal: AbortSignal): Promise<Inspection> {
  let answer: Response;
  try {
    answer = await fetch(url, {
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(30_000)]),
      ...(secret === undefined ? {} : { headers: { "x-edge-secret": secret } }),
    });
    await answer.body?.cancel();
  } catch (cause) {
    signal.throwIfAborted();
    throw new UnavailableError("CDN_UNREACHABLE", `${url.origin} did not answer. Does it run? rungs status`, {
      canRetry: true,
      cause,
    });
  }
  const { headers, status } = answer;
  const number = (name: string) => (headers.has(name) ? Number(headers.get(name)) : null);
  const keys = (headers.get("xkey") ?? headers.get("cache-tag") ?? "").split(/[ ,]+/).filter((key) => key !== "");
  return {
    url: url.href,
    status,
    result: headers.get("x-cache") ?? headers.get("cf-cache-status")?.toLowerCase() ?? null,
    ageSeconds: number("age"),
    ttlSeconds: number("x-edge-ttl"),
    hits: number("x-edge-hits"),
    keys,
    cdnCacheControl: headers.get("cdn-cache-control"),
    cacheControl: headers.get("cache-control"),
    etag: headers.get("etag"),
    notKept: notKept(headers),
  };
}

function notKept(headers: Headers): string | null {
  const reason = headers.get("x-not-shared");
  if (reason !== null) return reasons[reason] ?? reason;
  if (headers.get("x-cache") === "pass")
    return "the edge lets this address through: it can be read in two ways, or is long";
  if (headers.has("cdn-cache-control")) return null;
  return /no-store|private/i.test(headers.get("cache-control") ?? "") ? "its Cache-Control forbids it" : null;
}

function show(found: Inspection, { output }: CommandContext): void {
  const seconds = (value: number | null) => (value === null ? "-" : `${Math.round(value)} s`);
  const how: Readonly<Record<string, string>> = {
    hit: "from the CDN",
    stale: "from the CDN, older than it should be",
    miss: found.notKept === null ? "from the app just now; kept from now on" : "from the app",
    pass: "from the app, past the CDN",
  };
  output.line(`${found.url}  ${found.status}\n`);
  output.table({
    head: ["WHAT", ""],
    rows: [
      ["result", found.result === null ? "no CDN says so" : `${plain(found.result)}: ${how[found.result] ?? ""}`],
      ["not kept", found.notKept === null ? "-" : plain(found.notKept)],
      ["age", seconds(found.ageSeconds)],
      ["fresh for", seconds(found.ttlSeconds)],
      ["keys", plain(found.keys.join(" ")) || "-"],
      ["told the CDN", plain(found.cdnCacheControl ?? "-")],
      ["told browsers", plain(found.cacheControl ?? "-")],
      ["entity tag", plain(found.etag ?? "-")],
    ],
  });
}
