/** Joins the session tier's units of reads to the read contexts that the database tier routes by. */
import {
  decodePosition,
  encodePosition,
  inReadContext,
  type Position,
  type Positions,
  ReadContext,
  readContext,
} from "../../database/index.ts";
import type { ReadUnit, ReadUnits, Seen } from "../../session/index.ts";

/** Units that are read contexts; what they wait for ends `limitMs` after their begin, default never. */
export function readUnits({ limitMs = Number.POSITIVE_INFINITY }: { readonly limitMs?: number } = {}): ReadUnits {
  const units = new WeakMap<ReadContext, ReadUnit>();
  return {
    begin() {
      const context = new ReadContext();
      context.deadlineAt = performance.now() + limitMs;
      const unit = unitOf(context);
      units.set(context, unit);
      return unit;
    },
    current() {
      const context = readContext();
      return context === undefined ? undefined : units.get(context);
    },
  };
}

function unitOf(context: ReadContext): ReadUnit {
  return {
    run: (work) => inReadContext(context, work),
    isCurrent: () => readContext() === context,
    require: (seen) => context.require(positionsOf(seen)),
    hold: () => context.hold(),
    release: () => context.release(),
    get hasWrites() {
      return context.hasWrites;
    },
    settle: async () => seenOf(await context.settle()),
    end: () => context.end(),
  };
}

/** What cannot be read is left out. */
export function positionsOf(seen: Seen): Positions {
  const found = Object.entries(seen).map(([shard, text]) => [Number(shard), decodePosition(text)] as const);
  return new Map(found.filter((entry): entry is readonly [number, Position] => entry[1] !== undefined));
}

export function seenOf(positions: Positions): Seen {
  return Object.fromEntries([...positions].map(([shard, position]) => [String(shard), encodePosition(position)]));
}
