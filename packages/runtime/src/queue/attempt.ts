/** One try of one job: runs the handler within its limits and says what came of it. */
import { ConfigError, ConflictError, RungsError } from "../kernel/errors.ts";
import type { Random } from "../kernel/random.ts";
import { backoffMs, type Delivery, type EffectShard, type NamedHandler } from "./handler.ts";
import type { ClaimedJob, JobStore, Outcome } from "./job-store.ts";

/** What a try needs beside the job. `C`: what the app gives its handlers. */
export interface AttemptOptions<C> {
  readonly handler: NamedHandler<C>;
  readonly context: C;
  readonly job: ClaimedJob;
  readonly store: JobStore;
  readonly workerId: string;
  readonly random: Random;
  /** Aborted when the process must end: the job is handed back. */
  readonly stopSignal: AbortSignal;
}

/** "lost": another worker has the job now, and nothing is left to be said about it here. */
export type AttemptResult = { readonly outcome: Outcome | "lost"; readonly error?: unknown };

/** How long a job waits whose messages found no room in the outbox. */
const noRoom = { firstMs: 2_000, maxMs: 2_000 };

/** Raised by `giveUp`. */
class GivenUp extends Error {}

/** Never raises. */
export async function attempt<C>(options: AttemptOptions<C>): Promise<AttemptResult> {
  const { handler, context, job, stopSignal, random } = options;
  const { attemptsMax, timeLimitMs, backoff } = handler.options;
  // While old and new processes run side by side, one of the new ones gets it; no try is lost by that.
  if (job.version > handler.event.version) return { outcome: { kind: "putOff", delayMs: 0 } };
  if (job.attempt > attemptsMax) {
    // Each failed try is settled by its worker; one try more than the limit is left only by workers that died of it.
    const error = `The process that handled it ended ${attemptsMax} times while it did.`;
    return { outcome: { kind: "dead", error } };
  }
  let payload: unknown;
  try {
    payload = handler.event.parse(job.payload, job.version);
  } catch (error) {
    return { outcome: { kind: "dead", error: messageOf(error) }, error };
  }
  const limit = new AbortController();
  const signal = AbortSignal.any([limit.signal, stopSignal]);
  const timer = setTimeout(() => limit.abort(), timeLimitMs);
  try {
    await untilAborted(handler.run(deliveryOf(options, payload, signal), context), signal);
    return { outcome: { kind: "done" } };
  } catch (error) {
    if (error instanceof RungsError && error.code === "LEASE_LOST") return { outcome: "lost", error };
    if (stopSignal.aborted) return { outcome: { kind: "handBack" }, error };
    // It is no fault of the message that its own messages find no room; the broker may stay away longer than all tries last.
    if (error instanceof RungsError && error.code === "OUTBOX_FULL") {
      return { outcome: { kind: "putOff", delayMs: backoffMs(1, noRoom, random.next()) }, error };
    }
    const reason = limit.signal.aborted ? `It took longer than its limit of ${timeLimitMs} ms.` : messageOf(error);
    if (error instanceof GivenUp || job.attempt >= attemptsMax) {
      return { outcome: { kind: "dead", error: reason }, error };
    }
    return {
      outcome: { kind: "retry", delayMs: backoffMs(job.attempt, backoff, random.next()), error: reason },
      error,
    };
  } finally {
    clearTimeout(timer);
    limit.abort();
  }
}

function deliveryOf<C>(options: AttemptOptions<C>, payload: unknown, signal: AbortSignal): Delivery<unknown> {
  const { job, store, workerId, handler } = options;
  const named = new Set<string>();
  return {
    id: job.jobId,
    payload,
    attempt: job.attempt,
    publishedAt: job.publishedAt,
    signal,
    async once<X, R>(shard: EffectShard<X>, work: (tx: X) => Promise<R>, step = "") {
      // Of two steps of one name a later try would skip both after the first alone had committed.
      if (named.has(step)) {
        throw new ConfigError(
          "CONFIG_INVALID",
          `Handler "${handler.name}" runs two steps named "${step}" for one message. Give each once() a name of its own.`,
        );
      }
      named.add(step);
      return shard.transaction(async (tx) => {
        if (signal.aborted) throw leaseLost(handler.name, job);
        const verdict = await store.once(tx, workerId, job, step);
        if (verdict === "lost") throw leaseLost(handler.name, job);
        return verdict === "repeated" ? undefined : work(tx);
      });
    },
    giveUp(reason) {
      throw new GivenUp(reason);
    },
  };
}

function leaseLost(handler: string, job: ClaimedJob): ConflictError {
  return new ConflictError(
    "LEASE_LOST",
    `Try ${job.attempt} of job ${job.jobId} for "${handler}" was ended or went to another worker; its effects were rolled back.`,
  );
}

/** Does not wait for a handler that ignores the signal: whatever it does later, `once` refuses. */
async function untilAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  let stop: () => void = () => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(new Error("The try was broken off."));
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
  });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
    work.catch(() => {});
  }
}

/** PostgreSQL stores no NUL, and a failure that cannot be noted would hold up all that is settled with it. */
function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll("\0", "\uFFFD");
}
