/** The visits site: a web process in each of two regions, in all but that they share this one's memory. */
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import { pino } from "pino";
import { type RunningApp, startApp } from "../../../src/app/app.ts";
import type { RegionsReport } from "../../../src/app/open/regions.ts";
import { defineApp } from "../../../src/app/service.ts";
import { resolveTopology } from "../../../src/topology/index.ts";
import { type Ran, type VisitsTables, visitsOf } from "./visits-service.ts";

/** The inner address of a region, known before there is anything behind it. */
export interface RegionWay {
  readonly url: string;
  /** Leads to this address from now on; undefined: nowhere. */
  leadTo(url: string | undefined): void;
  close(): Promise<void>;
}

/** Opens one that leads nowhere yet. */
export async function openRegionWay(): Promise<RegionWay> {
  let target: string | undefined;
  const sockets = new Set<Socket>();
  const accept = createServer((client) => {
    if (target === undefined) return void client.resetAndDestroy();
    const upstream = createConnection(Number(new URL(target).port), "127.0.0.1");
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  await new Promise<void>((resolve) => accept.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(accept.address() as AddressInfo).port}`,
    leadTo(url) {
      target = url;
      if (url === undefined) for (const socket of sockets) socket.destroy();
    },
    async close() {
      const closed = new Promise((resolve) => accept.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** A running region. */
export interface VisitsRegion {
  readonly name: string;
  readonly app: RunningApp<VisitsTables>;
  report(): Promise<RegionsReport>;
}

/** Starts one region's process. */
export async function startVisits(options: {
  readonly name: "eu" | "us";
  readonly folder: string;
  readonly redisUrl: string;
  readonly shards: readonly {
    readonly leaderUrl: string;
    readonly followerUrls: readonly string[];
    readonly region?: string;
  }[];
  readonly ways: { readonly eu: RegionWay; readonly us: RegionWay };
  readonly ran: Ran[];
}): Promise<VisitsRegion> {
  const { name, folder, redisUrl, shards, ways, ran } = options;
  const environment: Record<string, string> = { RUNGS_REGION: name };
  const named = (variable: string, url: string) => {
    environment[variable] = url;
    return { env: variable };
  };
  const content = {
    dataDirectory: folder,
    web: { port: 0, loopLatenessMsMax: 0, trustProxy: ["127.0.0.1"] },
    sessions: { url: redisUrl },
    regions: {
      eu: { addresses: ["192.0.2.1"], isLeader: true, url: ways.eu.url },
      us: { addresses: ["192.0.2.2"], url: ways.us.url },
    },
    database: {
      shards: shards.map(({ leaderUrl, followerUrls, region }, shard) => ({
        leader: named(`LEADER_${shard}`, leaderUrl),
        followers: followerUrls.map((url, index) => named(`FOLLOWER_${shard}_${index}`, url)),
        region,
      })),
      replicas: { lagMsMax: 30_000 },
      pool: { connectionsMax: 8 },
    },
  };
  const { topology } = resolveTopology({ file: { name: "test", content }, environment });
  const log = pino({ level: process.env["VISITS_LOG"] ?? "silent" }, pino.destination(2));
  const app = await startApp(defineApp({ name: "visits", services: [visitsOf(name, ran)] }), {
    ...{ topology, environment, log },
  });
  ways[name].leadTo(app.address);
  return { name, app, report: async () => (await app.answerOperator({ about: "regions" })) as RegionsReport };
}

/** A browser, as the balancer of the region it talks to shows it. */
export class Browser {
  readonly address = "203.0.113.7";
  /** Of the page that sends. */
  origin = "https://visits.example";
  private readonly cookies = new Map<string, string>();

  /** Names of the cookies it has. */
  get cookieNames(): string[] {
    return [...this.cookies.keys()];
  }

  async ask(region: VisitsRegion, method: string, path: string, body: unknown = {}): Promise<Response> {
    const isRaw = body instanceof Uint8Array;
    const answer = await fetch(region.app.address + path, {
      method,
      headers: {
        "x-forwarded-for": this.address,
        "x-forwarded-proto": "https",
        "x-forwarded-host": "visits.example",
        origin: this.origin,
        // A process that stops waits a while for connections that its balancer keeps.
        connection: "close",
        cookie: [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; "),
        ...(method === "GET"
          ? { "sec-fetch-mode": "navigate" }
          : { "content-type": isRaw ? "application/octet-stream" : "application/json" }),
      },
      ...(method === "GET" ? {} : { body: isRaw ? body : JSON.stringify(body) }),
    });
    for (const cookie of answer.headers.getSetCookie()) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
      this.cookies.set(name, value);
    }
    return answer;
  }

  /** The answer's JSON; raises on any status but 200. */
  async get<R>(...asked: Parameters<Browser["ask"]>): Promise<R> {
    const answer = await this.ask(...asked);
    if (answer.status !== 200) throw new Error(`${asked[1]} ${asked[2]}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as R;
  }
}
