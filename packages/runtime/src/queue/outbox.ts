/** The port of the outbox: what transactions published on one shard, until the relay has given it to the broker. */
import type { BrokerMessage } from "./broker.ts";

/** A message with its place in the outbox. */
export interface OutboxRow {
  readonly sequence: number;
  readonly message: Omit<BrokerMessage, "shard" | "database">;
}

/** Which rows to give. */
export interface Taking {
  /** Sequences of rows that the broker has confirmed: they are deleted first. */
  readonly published: readonly number[];
  /** Sequences of rows that are on their way to the broker: not given again. */
  readonly underWay: readonly number[];
  /** Events whose messages are passed over. */
  readonly withoutEvents: readonly string[];
  /** Lowest sequence to look at. */
  readonly from: number;
  readonly rowsMax: number;
  /** Ends the batch with the row whose payload, as stored, reaches this. */
  readonly bytesMax: number;
}

/** What a holder of the lease is told. */
export interface Beat {
  /** False: another relay has the lease; the rest says nothing then. */
  readonly isActive: boolean;
  /** The highest number drawn by a publisher so far. */
  readonly lastSequence: number;
  /** Names of the transactions, not ended yet, that may have drawn it or lower ones. */
  readonly writers: readonly string[];
}

/** Figures of one shard's outbox. */
export interface OutboxFigures {
  /** Messages that wait; an estimate above 1,000. */
  readonly messages: number;
  /** Their size, estimated from the oldest hundred. */
  readonly bytes: number;
  /** Size of the table on disk, with its indexes and the space of deleted rows. */
  readonly tableBytes: number;
  /** Time since the oldest was published; 0 when none waits. */
  readonly oldestAgeMs: number;
  /** Publishing is refused. */
  readonly isFull: boolean;
}

/** One shard's outbox. Every call raises what the database raises, and may be repeated. */
export interface Outbox {
  /** The shard's, for messages, e.g. "shard 0". */
  readonly name: string;
  /**
   * Takes the lease or renews it: of all relays one has it, until it gave no beat for `leaseMs` by the database's clock. `floor`:
   * the sequence below which the relay knows that nothing is left.
   */
  beat(relayId: string, leaseMs: number, floor: number): Promise<Beat>;
  /** Gives the lease back, if it has it. */
  leave(relayId: string): Promise<void>;
  /** The next rows, in the order of their sequences. */
  take(taking: Taking): Promise<OutboxRow[]>;
  /** Measures, and lets publishing be refused from `bytesMax` on, until nine tenths of it are reached again. */
  measure(bytesMax: number): Promise<OutboxFigures>;
  /** Gives disk space of deleted rows back, if nothing waits and nobody else uses the table. Gives whether it did. */
  shrink(): Promise<boolean>;
}
