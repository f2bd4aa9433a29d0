/** Bounds loads in number and time. */
import { UnavailableError } from "../kernel/errors.ts";

export interface LoadGateOptions {
  readonly loadsMax?: number;
  readonly loadQueueMax?: number;
  readonly loadTimeoutMs?: number;
}

/** Lets a bounded number of loads run at once; the others wait in order, in a bounded queue. */
export class LoadGate {
  private readonly loadsMax: number;
  private readonly queueMax: number;
  private readonly timeoutMs: number;
  private readonly queue: (() => void)[] = [];
  private running = 0;

  constructor(options: LoadGateOptions) {
    this.loadsMax = options.loadsMax ?? 64;
    this.queueMax = options.loadQueueMax ?? 10_000;
    this.timeoutMs = options.loadTimeoutMs ?? 10_000;
  }

  /** Runs `load` in its turn. Raises `OVERLOADED` when the queue is full and `CACHE_LOAD_FAILED` when it takes too long. */
  async run<V>(load: (signal: AbortSignal) => Promise<V>): Promise<V> {
    if (this.running >= this.loadsMax) {
      if (this.queue.length >= this.queueMax) {
        throw new UnavailableError(
          "OVERLOADED",
          `${this.running} loads run and ${this.queue.length} wait already, the limit. The database behind the cache cannot keep up.`,
          { canRetry: true },
        );
      }
      await new Promise<void>((resolve) => this.queue.push(resolve));
    } else {
      this.running++;
    }
    try {
      return await this.withTimeout(load);
    } finally {
      const next = this.queue.shift();
      if (next === undefined) this.running--;
      else next();
    }
  }

  private withTimeout<V>(load: (signal: AbortSignal) => Promise<V>): Promise<V> {
    const abort = new AbortController();
    return new Promise<V>((resolve, reject) => {
      const timer = setTimeout(() => {
        const error = new UnavailableError(
          "CACHE_LOAD_FAILED",
          `A load took longer than ${this.timeoutMs} ms and was given up.`,
          {
            canRetry: true,
          },
        );
        abort.abort(error);
        reject(error);
      }, this.timeoutMs);
      load(abort.signal).then(
        (value) => {
          clearTimeout(timer);
          resolve(value);
        },
        (error: unknown) => {
          clearTimeout(timer);
          reject(error);
        },
      );
    });
  }
}
