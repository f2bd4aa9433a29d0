/**
 * What a pool does about the fail-over of a leader, behind an address that leads to the new one after a while.
 *
 * - *Connecting*: a connection counts only once the server has said that it is not in recovery, and on which timeline it is.
 * - *Refused write* (25006, 57P03, refused connection): nothing was done, so the caller waits for a leader. One search serves
 *   all who wait; it ends at the first server that passes, and each caller has a deadline.
 * - *Silence*: when connections are in use and none was answered for a while, a new one is tried twice. If that fails too, all
 *   are closed: a stopped server or a half-open socket would hold its callers until the statement's own limit. Writes
 *   under way are then of unknown outcome.
 * - *New timeline*: once a connection shows a later one, all others lead to a deposed leader, thawed perhaps, and are closed.
 */
import pg from "pg";
import type { Logger } from "../../kernel/log.ts";
import type { ReadContext } from "../replication/read-context.ts";
import { mustDiscard } from "./postgres-errors.ts";

/** Bounds of a fail-over. */
export interface LeaderOptions {
  /** How long a statement that was not carried out waits for a leader; default 15,000 ms. */
  readonly failoverMsMax?: number;
  /** A leader that has answered nothing for about this long has its connections closed; default 5,000 ms. */
  readonly silenceMsMax?: number;
}

const leaderSql = `select follows, case when not follows then
  ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int end as timeline
  from (select pg_is_in_recovery() as follows) server`;

const probeMsMax = 1_000;
const probesToGiveUp = 2;
/** Looks for a leader come this far apart; the last goes on. */
const searchPausesMs = [20, 50, 100, 200] as const;
/** For this long after a later timeline was seen, a server of an earlier one is an old leader and not a new cluster. */
const oldLeaderMs = 30_000;

export class LeaderKeeper {
  private readonly name: string;
  private readonly config: pg.ClientConfig;
  private readonly log: Logger;
  private readonly failoverMsMax: number;
  private readonly silenceMsMax: number;
  private readonly waitersMax: number;
  private readonly clients = new Set<pg.PoolClient>();
  private readonly pools: pg.Pool[] = [];
  private readonly generations = new WeakMap<object, number>();
  private generation = 0;
  private timeline = 0;
  private timelineSeenAt = Number.NEGATIVE_INFINITY;
  private waiting = 0;
  private search: Promise<boolean> | undefined;
  private answers = 0;
  private answersAtTick = 0;
  private silentTicks = 0;
  private timer: NodeJS.Timeout | undefined;
  private hasEnded = false;

  constructor(options: {
    readonly name: string;
    readonly config: pg.ClientConfig;
    readonly log: Logger;
    readonly leader: LeaderOptions;
    readonly waitersMax: number;
  }) {
    const { failoverMsMax = 15_000, silenceMsMax = 5_000 } = options.leader;
    this.name = options.name;
    this.config = options.config;
    this.log = options.log;
    this.failoverMsMax = failoverMsMax;
    this.silenceMsMax = silenceMsMax;
    this.waitersMax = options.waitersMax;
  }

  watch(pool: pg.Pool): void {
    pool.on("connect", (client) => this.clients.add(client));
    pool.on("remove", (client) => this.clients.delete(client));
    pool.on("release", () => {
      this.answers++;
    });
    this.pools.push(pool);
    this.timer ??= setInterval(() => void this.listen(), this.silenceMsMax / 4).unref();
  }

  /** Passes a new connection, or raises an error that counts as a refused connection. */
  async verify(client: pg.ClientBase, timeoutMs: number): Promise<void> {
    const { follows, timeline } = await askServer(client, timeoutMs);
    if (follows) throw notLeading("the server at its address follows another one now");
    const now = performance.now();
    if (timeline !== undefined && timeline < this.timeline && now - this.timelineSeenAt < oldLeaderMs) {
      throw notLeading(`the server at its address is an old leader, of timeline ${timeline} and not ${this.timeline}`);
    }
    if (timeline !== undefined && timeline !== this.timeline) {
      if (this.timeline !== 0) {
        this.log.warn({ shard: this.name, before: this.timeline, timeline }, "the database has a new leader");
        this.dropAll();
      }
      this.timeline = timeline;
    }
    this.timelineSeenAt = now;
    this.generations.set(client, this.generation);
  }

  /** Whether the connection must not be used any more. */
  isStale(client: pg.PoolClient): boolean {
    return this.generations.get(client) !== this.generation;
  }

  /** A server said that it does not lead: no other connection of before is trusted. */
  refused(): void {
    this.generation++;
  }

  /** Whether no leader is known and others wait for one already. */
  get isSearching(): boolean {
    return this.search !== undefined;
  }

  /** Until when a caller of that unit of work may wait. */
  deadline(context: ReadContext | undefined): number {
    return Math.min(performance.now() + this.failoverMsMax, context?.deadlineAt ?? Number.POSITIVE_INFINITY);
  }

  /** Waits for a leader; false when there was none in time, or too many wait. */
  async waitForLeader(deadlineAt: number): Promise<boolean> {
    const left = deadlineAt - performance.now();
    if (left <= 0 || this.waiting >= this.waitersMax || this.hasEnded) return false;
    this.waiting++;
    this.search ??= this.findLeader();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, left, false);
    });
    try {
      return await Promise.race([this.search, late]);
    } finally {
      clearTimeout(timer);
      this.waiting--;
    }
  }

  end(): void {
    this.hasEnded = true;
    clearInterval(this.timer);
  }

  /** Goes on as long as anyone waits; each of them has a deadline. */
  private async findLeader(): Promise<boolean> {
    let isFound = false;
    for (let round = 0; !isFound && !this.hasEnded && (round === 0 || this.waiting > 0); round++) {
      await pause(searchPausesMs[Math.min(round, searchPausesMs.length - 1)] as number);
      isFound = (await this.probe()) === "leads";
    }
    this.search = undefined;
    return isFound;
  }

  /** Tries a connection of its own. */
  private async probe(): Promise<"leads" | "answers" | "silent"> {
    const client = new pg.Client({ ...this.config, connectionTimeoutMillis: probeMsMax, query_timeout: probeMsMax });
    client.on("error", () => {});
    try {
      await client.connect();
      await this.verify(client, probeMsMax);
      return "leads";
    } catch (error) {
      // A server that refuses by a message of its own is alive; one that starts up or goes away is none to wait for.
      const code = (error as { code?: unknown } | undefined)?.code;
      return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) && !mustDiscard(error) ? "answers" : "silent";
    } finally {
      void client.end().catch(() => {});
    }
  }

  /** By the clock: is there an answer while connections are in use? */
  private async listen(): Promise<void> {
    const { answers, answersAtTick } = this;
    this.answersAtTick = answers;
    const isInUse = this.pools.some((pool) => pool.totalCount > pool.idleCount);
    this.silentTicks = isInUse && answers === answersAtTick ? this.silentTicks + 1 : 0;
    // Half of the time is for the probes.
    if (this.silentTicks !== 2) return;
    for (let probe = 0; probe < probesToGiveUp; probe++) {
      if ((await this.probe()) !== "silent" || this.answers !== answers || this.hasEnded) {
        this.silentTicks = 0;
        return;
      }
    }
    this.silentTicks = 0;
    this.log.warn(
      { shard: this.name, connections: this.clients.size },
      "the leader is silent: its connections are closed",
    );
    this.dropAll();
  }

  private dropAll(): void {
    this.generation++;
    // The pool may still give out idle ones until they have said so: as stale ones they are refused.
    for (const client of this.clients) {
      (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    }
  }
}

async function askServer(
  client: pg.ClientBase,
  timeoutMs: number,
): Promise<{ readonly follows: boolean; readonly timeline: number | undefined }> {
  const ask = async (text: string) => {
    const query = { text, query_timeout: timeoutMs } as pg.QueryConfig;
    return (await client.query<{ follows: boolean; timeline?: number | null }>(query)).rows[0];
  };
  try {
    const row = await ask(leaderSql);
    return { follows: row?.follows ?? false, timeline: row?.timeline ?? undefined };
  } catch (error) {
    // Where the login may not see the log's files, the timeline stays unknown.
    if ((error as { code?: unknown } | undefined)?.code !== "42501") throw error;
    return { follows: (await ask("select pg_is_in_recovery() as follows"))?.follows ?? false, timeline: undefined };
  }
}

/** An error as if the server had refused a write. */
function notLeading(why: string): Error {
  return Object.assign(new Error(why), { code: "25006" });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
