/** What the launcher starts: parts of a stack, each with what it needs, how it is ready and how it ends. */

/** What a part is there for. */
export type Role =
  | "consensus"
  | "failover"
  | "database"
  | "router"
  | "distance"
  | "sessions"
  | "cache"
  | "companion"
  | "broker"
  | "web"
  | "worker"
  | "service"
  | "balancer"
  | "cdn"
  | "dns";

/** Where a part is in its life. */
export type ComponentState =
  | "waiting"
  | "starting"
  | "ready"
  | "draining"
  | "restarting"
  | "failed"
  | "stopped"
  /** Killed on purpose and kept down, see `Component.lose`. */
  | "lost";

/** One process, for `status` and `--json`. */
export interface ProcessReport {
  /** E.g. "web-1"; also the name of its log. */
  readonly name: string;
  readonly role: Role;
  /** The region it is in; absent where a stack has none, or all regions share it. */
  readonly region?: string;
  readonly pid: number;
  /** TCP port on loopback; null: it listens on a unix socket, or on nothing. */
  readonly port: number | null;
  readonly state: ComponentState;
  /** Unexpected ends since the launcher started. */
  readonly crashes: number;
  /** When this process started, in ms since 1970. */
  readonly startedAtMs: number;
  /** What asks it to end; default SIGTERM. PostgreSQL would wait for its clients then. */
  readonly stopSignal?: "SIGINT";
}

/** One server of a shard. */
export interface MemberReport {
  /** E.g. "postgres-0-1". */
  readonly name: string;
  /** The region it is in; absent where a stack has none. */
  readonly region?: string;
  /** In Patroni's words: "leader", "sync_standby", "replica". */
  readonly role: string;
  /** In Patroni's words: "running" of a leader, "streaming" of a follower that keeps up. */
  readonly state: string;
  /** One more after each promotion; null while unknown. */
  readonly timeline: number | null;
  /** Bytes of log not yet received; null while unknown, and of a leader. */
  readonly lagBytes: number | null;
  /** On loopback. */
  readonly port: number;
}

/** One shard on servers started here. */
export interface ShardReport {
  readonly shard: number;
  /** Which keys live there, e.g. "buckets 0 to 511". */
  readonly placement: string;
  /** Ports on loopback that lead to whoever leads now, and to the followers by turns; with regions those of the leader's. */
  readonly leaderPort: number;
  readonly followersPort: number;
  readonly members: readonly MemberReport[];
}

/** One part of a stack. */
export interface Component {
  readonly name: string;
  readonly role: Role;
  /** Names of the parts that must be ready before it starts, and that stop after it. */
  readonly needs: readonly string[];
  /** What it would run, for `--dry-run`. */
  readonly plan: string;
  /** The region it belongs to; absent: all of them, or there are none. */
  readonly region?: string;
  /** Starts it and resolves when a real operation on it has worked. */
  start(signal: AbortSignal): Promise<void>;
  /** Stops it, in bounded time; does nothing when it does not run. */
  stop(): Promise<void>;
  /**
   * Kills its processes, and keeps it down until it is started again: the rehearsal of a lost region. All are killed before this
   * returns; it resolves when they are gone. Absent: it belongs to no region.
   */
  lose?(): Promise<void>;
  /** Its processes that run now. */
  processes(): ProcessReport[];
}

/** One handler over all processes that run it, since their starts. */
export interface HandlerReport {
  readonly handler: string;
  /** Processes that run it. */
  readonly processes: number;
  readonly running: number;
  readonly done: number;
  readonly retried: number;
  readonly dead: number;
  /** Messages that wait for it in the broker; null: no process tells. */
  readonly waiting: number | null;
}

/** One group of the app's processes. */
export interface GroupReport {
  /** "web", "workers", or the name of a group in `services`. */
  readonly name: string;
  readonly role: Role;
  /** The region it is in; absent where a stack has none. */
  readonly region?: string;
  /** Its processes that are ready, and all. */
  readonly ready: number;
  readonly processes: number;
  /** Where other groups reach it; null: nobody calls it. */
  readonly url: string | null;
}

/** One region of a stack. */
export interface RegionReport {
  readonly name: string;
  readonly addresses: readonly string[];
  /** "drained": DNS sends nobody there; "lost": its processes were killed and are kept down. */
  readonly state: "open" | "drained" | "lost";
  /** By the name server's checks, whatever the state. "unknown": it has not asked yet, or does not answer. */
  readonly health: "up" | "down" | "unknown";
  /** Shards that are led from there. */
  readonly leaders: readonly number[];
  /** Shards with a server there that runs and leads or follows. */
  readonly members: number;
  /** What the sessions' Redis there is. */
  readonly sessions: "master" | "replica" | "away";
  /** Of the app that are ready, and all processes that run there. */
  readonly ready: number;
  readonly processes: number;
}

/** What `rungs regions` tells. */
export interface RegionsReport {
  readonly regions: readonly RegionReport[];
  /** Where the name server answers, on 127.0.0.1. */
  readonly dns: {
    readonly zone: string;
    /** Whole names that lead to regions. */
    readonly names: readonly string[];
    readonly port: number;
    /** The app's file that the zone comes from; null: it was made up. */
    readonly file: string | null;
  };
}

/** Where a region's users reach the app. */
export interface RegionAddress {
  readonly name: string;
  readonly app: string;
}

/** What `up` and `status` tell. */
export interface StackStatus {
  /** Where users reach the app; with regions that of the first. */
  readonly app: string;
  /** Address of the dashboard; none yet. */
  readonly dashboard: string | null;
  readonly rung: number;
  readonly folder: string;
  readonly launcherPid: number;
  readonly processes: readonly ProcessReport[];
  readonly groups: readonly GroupReport[];
  /** Empty where the stack has no regions; what they do is told by `rungs regions`. */
  readonly regions: readonly RegionAddress[];
  /** The message broker that was started here, by the name of its process; null: none was. */
  readonly broker: "rabbitmq" | "kafka" | null;
  /** How keys map to shards, as it was started. */
  readonly placement: { readonly strategy: "hash" | "range"; readonly splits: readonly string[] };
  /** The shards of which servers were started here; from rung 4 on. */
  readonly shards: readonly ShardReport[];
  /** Handlers at work in the processes, and what waits for them; empty while no process tells. */
  readonly handlers: readonly HandlerReport[];
}
