/** What the launcher starts: parts of a stack, each with what it needs, how it is ready and how it ends. */

/** What a part is there for. */
export type Role = "database" | "sessions" | "cache" | "companion" | "web" | "balancer" | "cdn";

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

/** What `up` and `status` tell. */
export interface StackStatus {
  readonly app: string;
  /** Address of the dashboard; none yet. */
  readonly dashboard: string | null;
  readonly rung: number;
  readonly folder: string;
  readonly launcherPid: number;
  readonly processes: readonly ProcessReport[];
}
