/**
 * Orderly start and stop of the parts of a process.
 *
 * Parts start in the order they were added and stop in reverse, each within a bound. A failed start stops what had
 * started. A stop asked for during the start lets the part that is starting finish (or run into its bound), starts
 * nothing further, and stops the rest. Stopping happens once; every caller waits for the same stop.
 */
import type { Clock } from "./clock.ts";
import { systemClock } from "./clock.ts";
import { UnavailableError } from "./errors.ts";
import { type Logger, silentLogger } from "./log.ts";

/** A part of the process that can be started and stopped. */
export interface Component {
  /** Name for messages, e.g. "database". */
  readonly name: string;
  /** Starts it; `signal` is aborted when the process is asked to stop or the bound has passed. */
  start(signal: AbortSignal): Promise<void> | void;
  /** Stops it; called once, and only if it had started. */
  stop(): Promise<void> | void;
  /** Bound of the start; default 120,000 ms. */
  readonly startTimeoutMs?: number;
  /** Bound of the stop; default 10,000 ms. */
  readonly stopTimeoutMs?: number;
}

/** Parts that run and have to be stopped. */
export interface Lifecycle {
  /** Registers a part that {@link Lifecycle.start} will start. */
  add(component: Component): void;
  /**
   * Starts the registered parts in order. When one fails, those that had started are stopped and its error is raised;
   * errors of that stop are logged. Raises `SHUTTING_DOWN` when a stop came first.
   */
  start(): Promise<void>;
  /**
   * Notes a part that has just started by itself. `stopTimeoutMs` bounds its stop; default 10,000 ms.
   * Raises `SHUTTING_DOWN` when a stop has begun: the part is then stopped too, and the caller must not go on starting.
   */
  started(name: string, stop: () => Promise<void> | void, stopTimeoutMs?: number): void;
  /** Stops all parts, last started first, once; later calls wait for the same stop. Gives the errors met on the way. */
  stop(): Promise<readonly Error[]>;
}

interface RunningPart {
  readonly name: string;
  readonly stop: () => Promise<void> | void;
  readonly stopTimeoutMs: number;
}

const startTimeoutMsDefault = 120_000;
const stopTimeoutMsDefault = 10_000;

/** Makes an empty lifecycle. `clock` only measures how long a stop took. Default: silent, the machine's clock. */
export function createLifecycle(options: { readonly log?: Logger; readonly clock?: Clock } = {}): Lifecycle {
  return new PartLifecycle(options.log ?? silentLogger, options.clock ?? systemClock);
}

class PartLifecycle implements Lifecycle {
  private readonly log: Logger;
  private readonly clock: Clock;
  private readonly waiting: Component[] = [];
  private readonly running: RunningPart[] = [];
  private readonly stopRequest = new AbortController();
  private starting: Promise<void> | undefined;
  private stopping: Promise<readonly Error[]> | undefined;
  private isStopped = false;

  constructor(log: Logger, clock: Clock) {
    this.log = log;
    this.clock = clock;
  }

  add(component: Component): void {
    this.waiting.push(component);
  }

  async start(): Promise<void> {
    if (this.stopping !== undefined) throw shuttingDown("nothing was started");
    this.starting = this.startAll();
    try {
      await this.starting;
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  started(name: string, stop: () => Promise<void> | void, stopTimeoutMs = stopTimeoutMsDefault): void {
    const part = { name, stop, stopTimeoutMs };
    if (this.isStopped) void this.stopPart(part);
    else this.running.push(part);
    if (this.stopping !== undefined) throw shuttingDown(`${name} is stopped again`);
  }

  stop(): Promise<readonly Error[]> {
    this.stopping ??= this.stopAll();
    return this.stopping;
  }

  private async startAll(): Promise<void> {
    const { signal } = this.stopRequest;
    for (let component = this.waiting.shift(); component !== undefined; component = this.waiting.shift()) {
      const { name, stopTimeoutMs = stopTimeoutMsDefault } = component;
      if (signal.aborted) throw shuttingDown(`${name} was not started`);
      const current = component;
      const part: RunningPart = { name, stop: () => current.stop(), stopTimeoutMs };
      await startWithin(current, signal, (error) => {
        if (error === undefined) void this.stopPart(part);
        else this.log.error({ part: name, error }, "failed after its start had been given up");
      });
      this.running.push(part);
      this.log.debug({ part: name }, "started");
    }
    if (signal.aborted) throw shuttingDown("the start was broken off");
  }

  private async stopAll(): Promise<readonly Error[]> {
    this.stopRequest.abort();
    // Its failure reaches whoever called start; here only its end matters.
    await this.starting?.catch(() => {});
    const errors: Error[] = [];
    for (let part = this.running.pop(); part !== undefined; part = this.running.pop()) {
      const error = await this.stopPart(part);
      if (error !== undefined) errors.push(error);
    }
    this.isStopped = true;
    return errors;
  }

  private async stopPart(part: RunningPart): Promise<Error | undefined> {
    const since = this.clock.monotonic();
    try {
      await within(async () => part.stop(), part.stopTimeoutMs, `${part.name} did not stop`);
      this.log.debug({ part: part.name, ms: Math.round(this.clock.monotonic() - since) }, "stopped");
      return undefined;
    } catch (error) {
      this.log.error({ part: part.name, error }, "did not stop cleanly");
      return error instanceof Error ? error : new Error(`${part.name} did not stop cleanly: ${String(error)}`);
    }
  }
}

/** Settings of {@link runUntilSignal}. */
export interface RunUntilSignalOptions {
  /** Brings the app up; it runs with the signal handlers already in place. Its failure stops what runs and is raised. */
  readonly start?: () => Promise<void>;
  readonly clock?: Clock;
  readonly log?: Logger;
}

/**
 * npm forwards a signal to its child that the terminal has already sent to the whole foreground group
 * (`@npmcli/run-script`, signal-manager.js), so that one Ctrl-C under `npm start` arrives twice, milliseconds apart.
 */
const samePressMs = 300;

/**
 * Waits for SIGINT, SIGTERM, SIGHUP or the loss of the parent's IPC channel, then stops, once, and gives the errors of
 * that stop. Further signals change nothing, but a SIGINT more than 300 ms after the first signal ends the process at
 * once with code 130: the one place in Rungs that calls `process.exit` on its own.
 */
export async function runUntilSignal(
  stop: () => Promise<readonly Error[]>,
  options: RunUntilSignalOptions = {},
): Promise<readonly Error[]> {
  const { clock = systemClock, log = silentLogger } = options;
  let askedAt: number | undefined;
  let ask: () => void = () => {};
  const asked = new Promise<"asked">((resolve) => {
    ask = () => resolve("asked");
  });
  const request = (reason: string) => {
    if (askedAt === undefined) {
      askedAt = clock.monotonic();
      log.info({ reason }, "stopping");
      ask();
    } else if (reason === "SIGINT" && clock.monotonic() - askedAt > samePressMs) {
      process.exit(130);
    }
  };
  const onDisconnect = () => request("parent gone");
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
  for (const signal of signals) process.on(signal, request);
  process.on("disconnect", onDisconnect);
  // A pending promise alone does not keep Node alive; without this an app with nothing else open would just end.
  const keepAlive = setInterval(() => {}, 2 ** 30);
  try {
    const start = (options.start ?? (async () => {}))();
    try {
      // After a signal the start's own failure is expected: it was broken off.
      await Promise.race([start, asked]);
    } catch (error) {
      await stop();
      throw error;
    }
    start.catch((error: unknown) => log.debug({ error }, "the start was broken off"));
    await asked;
    return await stop();
  } finally {
    clearInterval(keepAlive);
    for (const signal of signals) process.off(signal, request);
    process.off("disconnect", onDisconnect);
  }
}

function shuttingDown(what: string): UnavailableError {
  return new UnavailableError("SHUTTING_DOWN", `The process is stopping; ${what}.`, { canRetry: false });
}

/** Starts within the bound; `onLate` hears how a start ended that had been given up on. */
async function startWithin(
  component: Component,
  stopSignal: AbortSignal,
  onLate: (error: unknown) => void,
): Promise<void> {
  const { name, startTimeoutMs = startTimeoutMsDefault } = component;
  const bound = new AbortController();
  let isGivenUp = false;
  const work = (async () => component.start(AbortSignal.any([stopSignal, bound.signal])))();
  work.then(
    () => isGivenUp && onLate(undefined),
    (error: unknown) => isGivenUp && onLate(error ?? new Error("no reason given")),
  );
  try {
    await within(() => work, startTimeoutMs, `${name} did not start`);
  } catch (error) {
    isGivenUp = true;
    bound.abort();
    throw error;
  }
}

async function within(work: () => Promise<void>, timeoutMs: number, what: string): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} within ${timeoutMs} ms.`)), timeoutMs);
  });
  try {
    await Promise.race([work(), late]);
  } finally {
    clearTimeout(timer);
  }
}
