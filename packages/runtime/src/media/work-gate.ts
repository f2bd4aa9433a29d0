/** A bound on work at once: some run, some wait first come first served, one more is refused. */
import { ConfigError, UnavailableError } from "../kernel/errors.ts";

/** Bounds of a gate. */
export interface WorkGateOptions {
  /** Name for messages, e.g. "images". */
  readonly name: string;
  readonly concurrencyMax: number;
  readonly queueMax: number;
}

/** Lets work in. */
export interface WorkGate {
  /**
   * Runs `work` when its turn has come. A caller whose signal aborts while waiting leaves the queue with the signal's
   * reason. Raises `OVERLOADED` when the queue is full.
   */
  run<Result>(work: () => Promise<Result>, signal?: AbortSignal): Promise<Result>;
}

/** Raises `CONFIG_INVALID` for bounds that are not whole numbers in range. */
export function createWorkGate({ name, concurrencyMax, queueMax }: WorkGateOptions): WorkGate {
  if (!Number.isInteger(concurrencyMax) || concurrencyMax < 1)
    throw new ConfigError(
      "CONFIG_INVALID",
      `${name}: concurrencyMax is ${concurrencyMax}; it needs a whole number of at least 1.`,
    );
  if (!Number.isInteger(queueMax) || queueMax < 0)
    throw new ConfigError("CONFIG_INVALID", `${name}: queueMax is ${queueMax}; it needs a whole number of at least 0.`);
  let running = 0;
  const waiting: (() => void)[] = [];

  const enter = async (signal: AbortSignal | undefined): Promise<void> => {
    signal?.throwIfAborted();
    if (running < concurrencyMax) {
      running++;
      return;
    }
    if (waiting.length >= queueMax) {
      const message = `${name}: ${running} at work and ${waiting.length} waiting; limit ${queueMax}. Try again later.`;
      throw new UnavailableError("OVERLOADED", message, { canRetry: true });
    }
    await new Promise<void>((resolve, reject) => {
      const turn = () => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      const leave = () => {
        waiting.splice(waiting.indexOf(turn), 1);
        reject(signal?.reason);
      };
      waiting.push(turn);
      signal?.addEventListener("abort", leave, { once: true });
    });
  };
  // The slot passes from the one who leaves to the next in line, so that nobody slips in between.
  const exit = () => {
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
  };
  return {
    async run(work, signal) {
      await enter(signal);
      try {
        return await work();
      } finally {
        exit();
      }
    },
  };
}
