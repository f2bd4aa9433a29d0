/** What a topology is: where each tier runs, as plain data. */
import type { Secret } from "./secret.ts";

/** The address of a server: a URL without a password, or a reference to a whole URL. */
export type Address = string | Secret;

/** Levels of the log, loudest first. */
export const logLevels = ["debug", "info", "warn", "error", "silent"] as const;

/** One database shard on servers of yours. */
export interface ShardServers {
  /** Takes the writes; PostgreSQL 15 or newer. */
  readonly leader: Address;
  /** Copies of it that serve reads: PostgreSQL's streaming replication. One that is no copy just now is left alone. */
  readonly followers?: readonly Address[] | undefined;
  /** Region of the leader, where the server itself does not say it (`rungs.region` in its postgresql.conf). */
  readonly region?: string | undefined;
}

/** One region, as GeoDNS hands it out. */
export interface Region {
  /** Public IP addresses or host names of the region's load balancers. */
  readonly addresses: readonly string[];
  /** True for the region that holds the leaders of which nothing else is known; exactly one. */
  readonly isLeader?: boolean | undefined;
  /**
   * Inner address of the region's load balancer, to which processes of other regions forward writes: of a network nobody else is in.
   * `rungs up` fills in its own.
   */
  readonly url?: string | undefined;
}

/** Content delivery network in front of the web tier. */
export interface CdnSettings {
  readonly provider: "varnish" | "cloudflare" | "fastly";
  /** The provider's id of the site; needed by all but Varnish. */
  readonly zone?: string | undefined;
  /** Access to the provider's API; for Varnish the secret of its purges. */
  readonly token?: Secret | undefined;
  /** For Varnish: base addresses of the purge sockets, one a server. `rungs up` fills in its own, with the token. */
  readonly addresses?: readonly string[] | undefined;
}

/** A database that the services of a group own. */
export interface ServiceDatabase {
  /** As in `database.shards`, without followers; a number only where `rungs up` starts that many servers. */
  readonly shards: number | readonly ShardServers[];
  /** As in `database`; default "hash". */
  readonly strategy?: "hash" | "range" | undefined;
  /** As in `database`; default none. */
  readonly splits?: readonly string[] | undefined;
}

/** Processes of their own for some of the app's work. */
export interface ServiceGroup {
  /** 1 to 256, default 1; of `web`, `web.processes` says it. */
  readonly processes?: number | undefined;
  /** Services that live in it; default the one of its name. Not for `web` and `workers`, which have what is left. */
  readonly services?: readonly string[] | undefined;
  /** Base address at which processes of other groups reach it, of a network nobody else is in. `rungs up` fills in its own. */
  readonly url?: string | undefined;
  /**
   * Where the tables of its services are, and nobody else's; default: in the app's database. Needs `queue.url`. Bounds of the pools are
   * those of `database`. Not for `web` and `workers`.
   */
  readonly database?: ServiceDatabase | undefined;
}

/** A topology with every default filled in. */
export interface Topology {
  /** Folder of everything that embedded tiers store; default ".rungs", relative to the working directory. */
  readonly dataDirectory: string;
  readonly web: {
    /** Address to listen on; default "127.0.0.1", this machine only. "0.0.0.0" or "::" for all. */
    readonly host: string;
    /** Port to listen on, 0 to 65535; 0 takes any free one; default 3000. */
    readonly port: number;
    /** Web processes, 1 to 256; default 1. */
    readonly processes: number;
    /** Load balancer in front of them; default none. */
    readonly balancer?: "nginx" | "haproxy" | undefined;
    /** Largest request body; default 1 MiB. */
    readonly bodyLimitBytes: number;
    /** How long a request may take to arrive; default 30,000 ms. */
    readonly requestTimeoutMs: number;
    /**
     * A loop that is later than this, or requests that would wait three times as long, are overload: some are refused early. Default
     * 100 ms, 0 for never.
     */
    readonly loopLatenessMsMax: number;
    /** Proxies whose X-Forwarded-For is believed: IP addresses, CIDR ranges, "loopback"; default none. */
    readonly trustProxy: readonly string[];
    /** Requests answered before 429; default without limits. A tenth of each, 10 at least, may come at once. */
    readonly limits?:
      | {
          /** Of one client address, an IPv6 address with its /64. */
          readonly addressPerMinute?: number | undefined;
          /** Of one signed-in user. */
          readonly userPerMinute?: number | undefined;
        }
      | undefined;
  };
  /** Where sessions, counts of attempts and requests, and live messages live. */
  readonly sessions: {
    /**
     * A Redis 6.2 or newer (7 for a Cluster): `redis://host:port`, `redis+sentinel://host,host/master`, `redis+cluster://host,host`,
     * with `rediss` for TLS. No URL: sessions in the database, the others in each process.
     */
    readonly url?: Address | undefined;
    /** The Redis of this process's region, `redis://host:port`: a copy of the one at `url`, or that one itself. Default: `url`. */
    readonly replica?: Address | undefined;
    /** File of the certificates, in PEM, that sign those of the servers; default those Node trusts. */
    readonly caFile?: string | undefined;
    /** Before each key, for apps that share a Redis; default "rungs:". */
    readonly prefix?: string | undefined;
  };
  readonly cache: {
    /** Default true. */
    readonly isEnabled: boolean;
    /**
     * Shared cache: a Redis of its own, `redis://host:port`, or memcached, `memcached://host:port,host2:port`, which needs
     * `sessions.url`. No URL: each process has its own only.
     */
    readonly url?: Address | undefined;
    /** Bounds of the in-process cache; default 10,000 entries and 64 MiB. */
    readonly local: { readonly entries: number; readonly bytes: number };
  };
  readonly cdn?: CdnSettings | undefined;
  readonly database: {
    /** Column that tells which shard a row lives on; default "user_id". */
    readonly key: string;
    /** Placement of keys: by hash (default), or by ranges cut at `splits`. */
    readonly strategy: "hash" | "range";
    /** For "range": ascending first keys of the second and later shards, one fewer than there are shards. */
    readonly splits: readonly string[];
    /** A number, 1 to 64: that many embedded databases (default 1). A list, up to 1,024: servers by address. */
    readonly shards: number | readonly ShardServers[];
    /**
     * Followers: one that lags behind its leader by more than `lagMsMax`, default 5,000 ms and at most 30,000, is not read from; a
     * read waits up to `waitMsMax`, default 50 ms, for one that is new enough, before the leader answers. The bound on the former
     * keeps it below the time after which an unused name may go to another (`sharding/directory.ts`).
     */
    readonly replicas: { readonly lagMsMax: number; readonly waitMsMax: number };
    /** Bounds of the pool to each shard; default 20 connections, 2,000 ms of waiting for one. */
    readonly pool: { readonly connectionsMax: number; readonly acquireTimeoutMs: number };
    /** The server cancels a statement after this; default 10,000 ms; 0 turns it off. */
    readonly statementTimeoutMs: number;
    /** Default true. Turn off behind PgBouncer in transaction mode before version 1.21. */
    readonly preparedStatements: boolean;
  };
  /** Where uploaded files live; no URL: in the folder `objects` under `dataDirectory`, which all processes must share. */
  readonly storage: {
    /** A bucket of a server that speaks S3's protocol, `s3://bucket`. */
    readonly url?: string | undefined;
    /** The bucket's region, e.g. "eu-central-1"; needed with a URL. */
    readonly region?: string | undefined;
    /** Address of the server; default Amazon's of the region. */
    readonly endpoint?: string | undefined;
    /** Access to the bucket; needed with a URL. */
    readonly accessKeyId?: Secret | undefined;
    /** Access to the bucket; needed with a URL. */
    readonly secretAccessKey?: Secret | undefined;
  };
  readonly queue: {
    /** Message broker: RabbitMQ, `amqp://host:port`, or Kafka, `kafka://host:port`. No URL: jobs live in the database. */
    readonly url?: Address | undefined;
    /** File of the certificates, in PEM, that sign those of the broker's servers; default those Node trusts. */
    readonly caFile?: string | undefined;
    /** Before every name in the broker; apps that share one need different ones. Default "rungs". */
    readonly prefix: string;
    /** Sequences of a handler's messages in the broker, 1 to 256: most processes that can work on them at once. Default 8. */
    readonly partitions: number;
    /** A shard whose messages for the broker take more than this refuses further ones; default 10 GiB. */
    readonly outboxBytesMax: number;
  };
  /**
   * Groups of processes by name, see `groups.ts`; default none: every process does everything. `workers` runs the handlers of all
   * services without a group of their own, `web` serves their routes; any other group does both for its services.
   */
  readonly services?: Readonly<Record<string, ServiceGroup>> | undefined;
  /** The group that this process belongs to; default none: it does everything. */
  readonly group?: string | undefined;
  /** Regions by name; default one, unnamed. */
  readonly regions?: Readonly<Record<string, Region>> | undefined;
  /** The region in which this process runs, one of `regions`; default none: the regions are no concern of it. */
  readonly region?: string | undefined;
  readonly log: {
    /** Default "info". */
    readonly level: (typeof logLevels)[number];
    /** Lines for people in place of JSON; default false. */
    readonly isPretty: boolean;
  };
}

type OptionalDeep<T> = T extends
  | Secret
  | readonly unknown[]
  | string
  | number
  | boolean
  | undefined
  | Region
  | CdnSettings
  ? T
  : { readonly [K in keyof T]?: OptionalDeep<T[K]> | undefined };

/** A topology as the developer writes it: every setting may be left out. */
export type TopologyInput = OptionalDeep<Topology>;

/** What holds where nothing is said: rung 1. */
export const defaultTopology: Topology = deepFreeze({
  dataDirectory: ".rungs",
  web: {
    host: "127.0.0.1",
    port: 3000,
    processes: 1,
    bodyLimitBytes: 1024 * 1024,
    requestTimeoutMs: 30_000,
    loopLatenessMsMax: 100,
    trustProxy: [],
  },
  sessions: {},
  cache: { isEnabled: true, local: { entries: 10_000, bytes: 64 * 1024 * 1024 } },
  database: {
    key: "user_id",
    strategy: "hash",
    splits: [],
    shards: 1,
    replicas: { lagMsMax: 5_000, waitMsMax: 50 },
    pool: { connectionsMax: 20, acquireTimeoutMs: 2_000 },
    statementTimeoutMs: 10_000,
    preparedStatements: true,
  },
  storage: {},
  queue: { prefix: "rungs", partitions: 8, outboxBytesMax: 10 * 1024 ** 3 },
  log: { level: "info", isPretty: false },
});

/**
 * Typed identity for `rungs.config.ts`: gives completion while writing and checks nothing at run time.
 *
 * @example
 * export default defineTopology({ web: { port: 8080 }, database: { shards: [{ leader: env("DATABASE_URL") }] } });
 */
export function defineTopology(topology: TopologyInput): TopologyInput {
  return topology;
}

/** How many shards the topology has. */
export function shardCount(topology: Topology): number {
  const { shards } = topology.database;
  return typeof shards === "number" ? shards : shards.length;
}

/** Freezes plain data all the way down and gives it back. */
export function deepFreeze<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  for (const item of Object.values(value)) deepFreeze(item);
  return Object.freeze(value);
}
