/** The port of the job tables as the place where messages of a broker wait. */
import type { BrokerMessage } from "./broker.ts";
import type { ClaimedJob } from "./job-store.ts";

/** A message on its way into the job table. */
export interface ParkedJob {
  readonly message: BrokerMessage;
  readonly handler: string;
  /** Tries so far. */
  readonly attempts: number;
  /** Wait before the next one. */
  readonly delayMs: number;
  readonly error: string | null;
  /** To the dead letters. */
  readonly isDead: boolean;
}

/** The job tables, as far as the broker's deliveries need them. Calls raise what the database raises, and may be repeated. */
export interface Parking {
  /** For each pair whether an earlier job of that handler and key is left on the shard. */
  blocked(shard: number, jobs: readonly { readonly handler: string; readonly key: string }[]): Promise<boolean[]>;
  /** Stores them in the order of the list; resolves once that is committed. */
  park(shard: number, jobs: readonly ParkedJob[]): Promise<void>;
  /** Inside the caller's transaction: notes the step of the message and handler. */
  noteStep(tx: unknown, job: ClaimedJob, step: string): Promise<"first" | "repeated">;
}
