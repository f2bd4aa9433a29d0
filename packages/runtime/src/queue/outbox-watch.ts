/**
 * Keeps an eye on how much waits in a shard's outbox: figures for metrics, the alarm, and the bound from which on publishing is
 * refused, so that a broker that stays away fills no disk.
 *
 * Each process that publishes or relays may watch; they come to the same verdict, and any of them is enough.
 */
import type { Clock } from "../kernel/clock.ts";
import type { Logger } from "../kernel/log.ts";
import type { Outbox, OutboxFigures } from "./outbox.ts";

export interface OutboxWatchOptions {
  readonly outbox: Outbox;
  /** Publishing is refused while more than this waits; default 10 GiB. */
  readonly bytesMax?: number;
  /** How often to measure; default 1,000 ms. What is published in between may exceed the bound. */
  readonly everyMs?: number;
  /** Whether this process may give disk space back; default: never. One a shard is enough. */
  readonly mayShrink?: () => boolean;
  readonly clock: Clock;
  readonly log: Logger;
}

export interface OutboxWatch {
  /** As last measured; undefined before the first time. */
  figures(): OutboxFigures | undefined;
  stop(): Promise<void>;
}

/** Where the topology says nothing else. */
const bytesMaxDefault = 10 * 1_024 ** 3;
/** A warning comes from this share of the bound on, and ends at half of that share. */
const warnShare = 0.5;
/** A table that takes less is left alone: its space is used again anyway. */
const shrinkFromBytes = 64 * 1_024 ** 2;
const shrinkEveryMs = 10_000;

/** Starts at once. Raises nothing: a database that does not answer is measured later. */
export function watchOutbox(options: OutboxWatchOptions): OutboxWatch {
  const { outbox, bytesMax = bytesMaxDefault, everyMs = 1_000, mayShrink = () => false, clock, log } = options;
  let figures: OutboxFigures | undefined;
  let isWarned = false;
  let shrunkAt = Number.NEGATIVE_INFINITY;

  const measure = async () => {
    const wasFull = figures?.isFull ?? false;
    figures = await outbox.measure(bytesMax);
    const { isFull, bytes, messages, tableBytes } = figures;
    const fields = { shard: outbox.name, ...figures, bytesMax };
    if (isFull && !wasFull)
      log.error(fields, "the outbox is full: publishing is refused until the relay has made room");
    if (!isFull && wasFull) log.info(fields, "the outbox has room again: publishing goes on");
    if (!isWarned && !isFull && bytes >= bytesMax * warnShare) {
      isWarned = true;
      log.warn(fields, "the outbox is half full: the broker takes fewer messages than are published");
    } else if (isWarned && bytes < (bytesMax * warnShare) / 2) isWarned = false;
    if (messages > 0 || tableBytes < shrinkFromBytes || !mayShrink()) return;
    if (clock.monotonic() - shrunkAt < shrinkEveryMs) return;
    shrunkAt = clock.monotonic();
    await outbox.shrink();
  };

  let measuring: Promise<void> | undefined;
  let isTroubled = false;
  const look = () => {
    measuring ??= measure()
      .then(
        () => {
          isTroubled = false;
        },
        (error: unknown) => {
          if (!isTroubled) log.warn({ shard: outbox.name, error }, "the outbox could not be measured; trying again");
          isTroubled = true;
        },
      )
      .finally(() => {
        measuring = undefined;
      });
  };
  const timer = setInterval(look, everyMs).unref();
  look();
  return {
    figures: () => figures,
    async stop() {
      clearInterval(timer);
      await measuring;
    },
  };
}
