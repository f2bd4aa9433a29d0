/** What the launcher starts: parts of a stack, each with what it needs, how it is ready and how it ends. */

/** What a part is there for. */
export type Role =
  | "consensus"
  | "failover"
  | "database"
  | "router"
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
export type ComponentState = "waiting" | "starting" | "ready" | "draining" | "restarting" | "failed" | "stopped";

/** One process, for `status` and `--json`. */
export interface ProcessReport {
  /** E.g. "web-1"; also the name of its log. */
  readonly name: string;
  readonly role: Role;
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
  /** Ports on loopback that lead to whoever leads now, and to the followers by turns. */
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
  /** Starts it and resolves when a real operation on it has worked. */
  start(signal: AbortSignal): Promise<void>;
  /** Stops it, in bounded time; does nothing when it does not run. */
  stop(): Promise<void>;
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
  /** Its processes that are ready, and all. */
  readonly ready: number;
  readonly processes: number;
  /** Where other groups reach it; null: nobody calls it. */
  readonly url: string | null;
}

/** What `up` and `status` tell. */
export interface StackStatus {
  readonly app: string;
  /** Address of the dashboard; none yet. */
  readonly dashboard: string | null;
  readonly rung: number;
  readonly folder: string;
  readonly launcherPid: number;
  readonly processes: readonly ProcessReport[];
  readonly groups: readonly GroupReport[];
  /** The message broker that was started here, by the name of its process; null: none was. */
  readonly broker: "rabbitmq" | "kafka" | null;
  /** How keys map to shards, as it was started. */
  readonly placement: { readonly strategy: "hash" | "range"; readonly splits: readonly string[] };
  /** The shards of which servers were started here; from rung 4 on. */
  readonly shards: readonly ShardReport[];
  /** Handlers at work in the processes, and what waits for them; empty while no process tells. */
  readonly handlers: readonly HandlerReport[];
}
