/** The operator's view of the job tables of several databases; what it does to them is in `postgres-job-changes.ts`. */
import { ConfigError, ConflictError, UnavailableError, UnsupportedError } from "../../kernel/errors.ts";
import type { Broker } from "../broker.ts";
import { redact } from "../event.ts";
import {
  type JobAdmin,
  type JobCounts,
  type JobDetail,
  type JobFilter,
  type JobSelection,
  type JobState,
  type JobSummary,
  jobPageMax,
  jobSelectionMax,
  jobStates,
  replaySafeMs,
} from "../job-admin.ts";
import { waitingElsewhere } from "./broker-counts.ts";
import { priorities } from "./job-writer.ts";
import { dropJobs, retryJobs, stateSql } from "./postgres-job-changes.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";
import { declaredHandler, pausedHandlers, pauseHandler, resumeHandler } from "./postgres-pauses.ts";

const liveSql = `select 0 as part, sequence::text as place, job_id, handler, event, key, payload, version, priority, published_at,
  run_at, attempts, worker_id, steps, error, ${stateSql} as state from rungs_jobs`;
const deadSql = `select 1 as part, handler || ' ' || job_id::text as place, job_id, handler, event, key, payload, version, priority,
  published_at, died_at as run_at, attempts, null as worker_id, steps, error, 'dead' as state from rungs_dead_jobs`;

/** No state has an index of its own, so this reads the table once: without sorting, and with helpers where the server has some. */
const countsSql = `
  select handler, state, count(*) as count, (extract(epoch from clock_timestamp() - min(run_at)) * 1000)::float8 as age
    from (select handler, ${stateSql} as state, run_at from rungs_jobs) jobs group by handler, state
  union all
  select handler, 'dead', count(*), (extract(epoch from clock_timestamp() - min(died_at)) * 1000)::float8
    from rungs_dead_jobs group by handler`;

interface Row {
  readonly part: number;
  readonly place: string;
  readonly job_id: string;
  readonly handler: string;
  readonly event: string;
  readonly key: string | null;
  readonly payload: unknown;
  readonly version: number;
  readonly priority: number;
  readonly published_at: Date;
  readonly run_at: Date;
  readonly attempts: number;
  readonly worker_id: string | null;
  readonly steps: string[];
  readonly error: string | null;
  readonly state: JobState;
}

/** Where a page begins: behind that job of that shard. */
interface Mark {
  readonly shard: number;
  readonly part: 0 | 1;
  readonly place: string;
}

/** What {@link jobAdmin} looks at. */
export interface JobAdminOptions {
  /** The broker that carries messages, if one does. */
  readonly broker?: Broker;
  /**
   * The home databases of services that own one; their shards are among the others. Default none. `homeOf`: that of a handler,
   * undefined for the app's.
   */
  readonly homes?: readonly SqlDatabase[];
  readonly homeOf?: (handler: string) => SqlDatabase | undefined;
  /**
   * Told of each shard, except the home database, and of the broker when it does not answer: it is passed over then. Default: the
   * call raises `DATABASE_UNREACHABLE` or `BROKER_UNREACHABLE`.
   */
  readonly onMissing?: (name: string, error: UnavailableError) => void;
}

/** Opens the view, of which the first shard is the home database. Raises `CONFIG_INVALID` on an id, page mark or limit that is none. */
export function jobAdmin(shards: readonly SqlDatabase[], options: JobAdminOptions = {}): JobAdmin {
  const { broker, homes = [], homeOf = () => undefined, onMissing } = options;
  const reached = async <R>(place: { readonly name: string }, ask: () => Promise<R>, otherwise: R): Promise<R> => {
    try {
      return await ask();
    } catch (error) {
      const isPassedOver = onMissing !== undefined && place !== shards[0] && isUnreachable(error);
      if (!isPassedOver) throw error;
      onMissing(place.name, error);
      return otherwise;
    }
  };
  const onAll = async (
    act: (shard: SqlDatabase, selection: JobSelection, room: number) => Promise<number>,
    selection: JobSelection,
  ) => {
    checkSelection(selection);
    const { limit } = selection;
    let count = 0;
    for (const shard of shards) {
      if (count < limit) count += await reached(shard, () => act(shard, selection, limit - count), 0);
    }
    return count;
  };
  const home = (): SqlDatabase => {
    const [first] = shards;
    if (first === undefined) throw new ConfigError("CONFIG_INVALID", "There is no database.");
    return first;
  };
  const pausedAnywhere = async (): Promise<string[]> => {
    const others = homes.map((each) => reached(each, () => pausedHandlers(each), []));
    return (await Promise.all([pausedHandlers(home()), ...others])).flat();
  };
  return {
    async counts() {
      const elsewhere = broker === undefined ? [] : await waitingElsewhere({ shards, home: home(), broker, reached });
      const parts = await Promise.all(
        shards.map((shard) => reached(shard, () => shard.query<CountRow>(undefined, countsSql, []), [])),
      );
      const ready = elsewhere.map((waiting) => ({ ...waiting, state: "ready" as const }));
      return totals([...parts.flat(), ...ready], await pausedAnywhere());
    },

    async list(filter) {
      const { limit } = filter;
      checkLimit(limit, jobPageMax);
      const from = filter.after === undefined ? start(0) : readMark(filter.after, shards.length);
      const jobs: (JobSummary & { mark: string })[] = [];
      for (const [index, shard] of shards.entries()) {
        if (index < from.shard || jobs.length > limit) continue;
        const after = index === from.shard ? from : start(index);
        const rows = await reached(shard, () => page(shard, filter, after, limit + 1 - jobs.length), []);
        jobs.push(...rows.map((row) => ({ ...summaryOf(row, shard.name), mark: mark(index, row) })));
      }
      const shown = jobs.slice(0, limit);
      const next = jobs.length > limit ? (shown.at(-1)?.mark ?? null) : null;
      return { jobs: shown.map(({ mark: _, ...job }) => job), next };
    },

    async show(id) {
      checkIds([id]);
      const parts = await Promise.all(shards.map((shard) => reached(shard, () => details(shard, id), [])));
      return parts.flat();
    },

    retry: (selection) => onAll(retryJobs, selection),
    drop: (selection) => onAll(dropJobs, selection),
    pause: async (handler) => pauseHandler(homeOf(handler) ?? home(), handler),
    resume: async (handler) => resumeHandler(homeOf(handler) ?? home(), handler),

    async replay(handler, { from, mayRepeat = false }) {
      const subscription = await declaredHandler(home(), handler);
      if (broker?.replay === undefined) throw cannotReplay(broker);
      if (!mayRepeat && Date.now() - from.getTime() > replaySafeMs) throw repeats(handler);
      await broker.replay(subscription, { from });
    },
  };
}

function isUnreachable(error: unknown): error is UnavailableError {
  return (
    error instanceof UnavailableError && (error.code === "DATABASE_UNREACHABLE" || error.code === "BROKER_UNREACHABLE")
  );
}

interface CountRow {
  readonly handler: string;
  readonly state: JobState;
  readonly count: number;
  readonly age: number | undefined;
}

function totals(rows: readonly CountRow[], paused: readonly string[]): JobCounts[] {
  const byHandler = Map.groupBy(rows, (row) => row.handler);
  for (const handler of paused) if (!byHandler.has(handler)) byHandler.set(handler, []);
  return [...byHandler.entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([handler, parts]) => {
      const of = (state: JobState) => parts.filter((part) => part.state === state);
      const numbers = Object.fromEntries(
        jobStates.map((state) => [state, of(state).reduce((sum, { count }) => sum + count, 0)]),
      ) as Record<JobState, number>;
      const oldest = (state: JobState) => {
        const ages = of(state).flatMap(({ age }) => age ?? []);
        return ages.length === 0 ? null : Math.max(0, Math.round(Math.max(...ages)));
      };
      const ages = { oldestReadyAgeMs: oldest("ready"), oldestDeadAgeMs: oldest("dead") };
      return { handler, ...numbers, isPaused: paused.includes(handler), ...ages };
    });
}

function cannotReplay(broker: Broker | undefined): UnsupportedError {
  const where = broker === undefined ? "The job tables forget" : `${broker.name} forgets`;
  const message = `${where} a message once it is done, so there is nothing to deliver once more. Kafka keeps them for a time: set queue.url to one.`;
  return new UnsupportedError("CAPABILITY_MISSING", message);
}

function repeats(handler: string): ConflictError {
  const message =
    `What "${handler}" did more than ${replaySafeMs / 3_600_000} hours ago would happen a second time: the records that prevent it ` +
    "are kept for a day only. Replay from a later time, or say that it may.";
  return new ConflictError("REPLAY_REPEATS", message);
}

/** Live jobs by sequence, then dead ones by handler and id: each in the order of its primary key, so that no page sorts. */
async function page(shard: SqlDatabase, filter: JobFilter, after: Mark, limit: number): Promise<Row[]> {
  const { handler = null, state = null, key = null } = filter;
  const rows: Row[] = [];
  if (after.part === 0 && state !== "dead") {
    const sql = `${liveSql} where sequence > $1::bigint and ($2::text is null or handler = $2) and ($3::text is null or key = $3)
      and ($4::text is null or ${stateSql} = $4) order by sequence limit $5`;
    const values = [after.place === "" ? "0" : after.place, handler, key, state, limit];
    rows.push(...(await shard.query<Row>(undefined, sql, values)));
  }
  if (rows.length < limit && (state === null || state === "dead")) {
    const [afterHandler, afterId] = after.part === 0 ? ["", zeroId] : placeOfDead(after.place);
    const sql = `${deadSql} where (handler, job_id) > ($1::text collate "C", $2::uuid) and ($3::text is null or handler = $3)
      and ($4::text is null or key = $4) order by handler, job_id limit $5`;
    rows.push(...(await shard.query<Row>(undefined, sql, [afterHandler, afterId, handler, key, limit - rows.length])));
  }
  return rows;
}

async function details(shard: SqlDatabase, id: string): Promise<JobDetail[]> {
  const sql = `select jobs.*, e.sensitive_of -> jobs.version::text as sensitive from (
      ${liveSql} where job_id = $1 union all ${deadSql} where job_id = $1
    ) jobs left join rungs_events e on e.name = jobs.event order by handler, part`;
  const rows = await shard.query<Row & { readonly sensitive: string[][] | null }>(undefined, sql, [id]);
  return rows.map((row) => ({
    ...summaryOf(row, shard.name),
    version: row.version,
    payload: redact(row.payload, row.sensitive ?? [[]]),
    workerId: row.worker_id,
    steps: row.steps,
  }));
}

function summaryOf(row: Row, shard: string): JobSummary {
  return {
    id: row.job_id,
    shard,
    event: row.event,
    handler: row.handler,
    key: row.key,
    state: row.state,
    attempts: row.attempts,
    priority: priorities[row.priority] ?? "normal",
    publishedAt: row.published_at,
    runAt: row.run_at,
    lastError: row.error,
  };
}

function checkSelection({ ids, handler, state, limit }: JobSelection): void {
  checkLimit(limit, jobSelectionMax);
  if (ids !== undefined) checkIds(ids);
  if (ids !== undefined || handler !== undefined || state !== undefined) return;
  throw new ConfigError(
    "CONFIG_INVALID",
    "Name the jobs by their ids, a handler or a state; acting on all is refused.",
  );
}

function checkLimit(limit: number, max: number): void {
  if (Number.isInteger(limit) && limit >= 1 && limit <= max) return;
  throw new ConfigError("CONFIG_INVALID", `limit: expected a whole number from 1 to ${max}, found ${limit}.`);
}

function checkIds(ids: readonly string[]): void {
  const wrong = ids.find((id) => !uuidPattern.test(id));
  if (wrong !== undefined) throw new ConfigError("CONFIG_INVALID", `"${wrong}" is no job id: a UUID is expected.`);
}

const uuidPattern = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const zeroId = "00000000-0000-0000-0000-000000000000";

function start(shard: number): Mark {
  return { shard, part: 0, place: "" };
}

function mark(shard: number, { part, place }: Row): string {
  return Buffer.from(JSON.stringify([shard, part, place])).toString("base64url");
}

function readMark(text: string, shards: number): Mark {
  try {
    const [shard, part, place] = JSON.parse(Buffer.from(text, "base64url").toString()) as unknown[];
    if (Number.isInteger(shard) && (shard as number) >= 0 && (shard as number) < shards && typeof place === "string") {
      const isLive = part === 0 && /^\d{1,18}$/.test(place);
      const isDead = part === 1 && uuidPattern.test(placeOfDead(place)[1]) && !place.includes("\0");
      if (isLive || isDead) return { shard: shard as number, part: isLive ? 0 : 1, place };
    }
  } catch {
    // Told below.
  }
  throw new ConfigError("CONFIG_INVALID", `"${text}" is no page mark: give "next" of the page before, as it is.`);
}

/** A handler's name may hold a space; an id does not. */
function placeOfDead(place: string): readonly [handler: string, id: string] {
  const at = place.lastIndexOf(" ");
  return [place.slice(0, Math.max(0, at)), place.slice(at + 1)];
}
