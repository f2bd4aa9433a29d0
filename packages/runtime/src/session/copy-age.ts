/**
 * How far a copy of the session store may be behind, by a heartbeat: this process writes rising numbers where sessions are changed and
 * looks which one the copy has. The copy has everything that was changed before the newest beat it shows was sent. So its age is
 * told by this process's own clock; no two clocks are compared.
 *
 * Reached by a new connection, at either end, is what may be another server than before, or the same one gone back: then nothing is
 * known (the next *era*) until the copy shows a beat that was sent after it. A copy that shows an older beat than before has gone back
 * too. So a server that took over with less than the last one is found out before anything of it is believed.
 */
import { type Clock, systemClock } from "../kernel/clock.ts";
import { type Logger, silentLogger } from "../kernel/log.ts";

/** The port: both ends of one process's heartbeat. */
export interface HeartbeatLine {
  /** Writes the number where sessions are changed. Raises `UnavailableError`. */
  write(beat: number): Promise<void>;
  /** The number that the copy has; 0 for none. Raises `UnavailableError`. */
  read(): Promise<number>;
  /** Hears of each new connection, to either end, before anything else is sent by it. */
  onConnect(listener: () => void): Promise<void>;
}

/** What is known of a copy. */
export interface CopyAge {
  /** Changed each time when what was known before is worth nothing any more. */
  readonly era: number;
  /** All that was changed longer ago than this, in ms, is in the copy; Infinity while that is not known. */
  ageMs(): number;
  /** Something is wrong with the copy: nothing is known until it shows a beat sent from now on. */
  doubt(): void;
}

/** Settings of {@link openCopyAge}. */
export interface CopyAgeOptions {
  readonly line: HeartbeatLine;
  readonly clock?: Clock;
  readonly log?: Logger;
  /** Between beats, in ms; default 500. */
  readonly beatEveryMs?: number;
  /** Between looks at the copy, in ms; default 200. */
  readonly lookEveryMs?: number;
  /** Does something every so many ms until the function given is called; default by the system's timers. */
  readonly every?: (ms: number, work: () => void) => () => void;
}

/** Beats under way that are remembered: enough for a copy that is half a minute behind, which is good for nothing. */
const beatsMax = 64;

/** Starts the heart; resolves at once in the knowledge of nothing. */
export async function openCopyAge(options: CopyAgeOptions): Promise<CopyAge & { close(): void }> {
  const { line, clock = systemClock, log = silentLogger, every = bySystemTimers } = options;
  const { beatEveryMs = 500, lookEveryMs = 200 } = options;
  /** When each beat of this era was sent. */
  const sent = new Map<number, number>();
  let era = 0;
  let beat = 0;
  let shown = 0;
  let knownAsOf = Number.NEGATIVE_INFINITY;

  function doubt(): void {
    era++;
    shown = 0;
    knownAsOf = Number.NEGATIVE_INFINITY;
    sent.clear();
  }

  async function write(): Promise<void> {
    beat++;
    const [oldest] = sent.size >= beatsMax ? sent.keys() : [];
    if (oldest !== undefined) sent.delete(oldest);
    sent.set(beat, clock.monotonic());
    await line.write(beat);
  }

  async function look(): Promise<void> {
    const asked = era;
    const found = await line.read();
    // Read by a connection of before, perhaps.
    if (asked !== era) return;
    if (found < shown) return doubt();
    shown = found;
    knownAsOf = sent.get(found) ?? knownAsOf;
  }

  /** One at a time, the first at once. */
  function regularly(work: () => Promise<void>, everyMs: number, failure: string): () => void {
    let isUnderWay = false;
    const run = () => {
      if (isUnderWay) return;
      isUnderWay = true;
      work()
        .catch((error: unknown) => log.debug({ error }, failure))
        .finally(() => {
          isUnderWay = false;
        });
    };
    run();
    return every(everyMs, run);
  }

  await line.onConnect(doubt);
  const ends = [
    regularly(write, beatEveryMs, "the sessions' heartbeat could not be written"),
    regularly(look, lookEveryMs, "a copy of the sessions could not be looked at"),
  ];
  return {
    get era() {
      return era;
    },
    ageMs: () => clock.monotonic() - knownAsOf,
    doubt,
    close() {
      for (const end of ends) end();
    },
  };
}

function bySystemTimers(ms: number, work: () => void): () => void {
  const timer = setInterval(work, ms).unref();
  return () => clearInterval(timer);
}
