/**
 * Handlers that an operator paused: rows of `rungs_pauses` on the home database, which every process with handlers reads once a
 * second. While the home database does not answer, what was last read holds.
 */
import { ConfigError } from "../../kernel/errors.ts";
import type { Logger } from "../../kernel/log.ts";
import type { Subscription } from "../broker.ts";
import type { SqlDatabase } from "./postgres-job-store.ts";

const readEveryMs = 1_000;

/** Names of the paused handlers, in order. Raises what the database raises. */
export async function pausedHandlers(home: SqlDatabase): Promise<string[]> {
  const sql = "select handler from rungs_pauses order by handler";
  const rows = await home.query<{ handler: string }>("rungs_pauses", sql, []);
  return rows.map(({ handler }) => handler);
}

/** Pauses a declared handler. Gives false when it was paused before. Raises `HANDLER_UNKNOWN`. */
export async function pauseHandler(home: SqlDatabase, handler: string): Promise<boolean> {
  await declaredHandler(home, handler);
  const sql = "insert into rungs_pauses (handler) values ($1) on conflict do nothing returning handler";
  return (await home.query(undefined, sql, [handler])).length > 0;
}

/** Lets a handler go on, also one that is no longer declared. Gives false when it was not paused. Raises `HANDLER_UNKNOWN`. */
export async function resumeHandler(home: SqlDatabase, handler: string): Promise<boolean> {
  const sql = "delete from rungs_pauses where handler = $1 returning handler";
  if ((await home.query(undefined, sql, [handler])).length > 0) return true;
  await declaredHandler(home, handler);
  return false;
}

/** All handlers that the app declared, with their events. */
export function declaredHandlers(home: SqlDatabase): Promise<Subscription[]> {
  const sql =
    "select e.name as event, h.handler from rungs_events e cross join unnest(e.handlers) h(handler) order by 2, 1";
  return home.query<Subscription>(undefined, sql, []);
}

/** The declared handler of that name. Raises `HANDLER_UNKNOWN`, with all names there are in `known`. */
export async function declaredHandler(home: SqlDatabase, handler: string): Promise<Subscription> {
  const declared = await declaredHandlers(home);
  const found = declared.find((each) => each.handler === handler);
  if (found !== undefined) return found;
  throw new HandlerUnknownError(
    handler,
    declared.map((each) => each.handler),
  );
}

/** The name of no handler of the app. */
export class HandlerUnknownError extends ConfigError {
  /** The name that is none. */
  readonly handler: string;
  /** Names of those there are. */
  readonly known: readonly string[];

  constructor(handler: string, known: readonly string[]) {
    const names = known.length === 0 ? "It has none" : `It has ${known.slice(0, 20).join(", ")}`;
    super("HANDLER_UNKNOWN", `The app has no handler "${handler}". ${names}${known.length > 20 ? " and more" : ""}.`);
    this.handler = handler;
    this.known = known;
  }
}

/** Calls `changed` with all paused handlers whenever they are others than before; `from` is what was read at the start. */
export function watchPauses(options: {
  readonly home: SqlDatabase;
  readonly from: readonly string[];
  readonly changed: (paused: readonly string[]) => void;
  readonly log: Logger;
}): { paused(): readonly string[]; stop(): void } {
  const { home, changed, log } = options;
  let known: readonly string[] = options.from;
  let isReading = false;
  let isStopped = false;
  const read = async () => {
    if (isReading) return;
    isReading = true;
    try {
      const paused = await pausedHandlers(home);
      if (isStopped || paused.join("\n") === known.join("\n")) return;
      log.info({ paused }, paused.length === 0 ? "no handler is paused any more" : "these handlers are paused");
      changed(paused);
      known = paused;
    } catch (error) {
      log.debug({ error }, "paused handlers could not be read; trying again");
    } finally {
      isReading = false;
    }
  };
  const timer = setInterval(() => void read(), readEveryMs).unref();
  return {
    paused: () => known,
    stop() {
      isStopped = true;
      clearInterval(timer);
    },
  };
}
