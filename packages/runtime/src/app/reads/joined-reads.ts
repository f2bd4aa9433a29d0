/**
 * Joins calls between processes to the session guarantees: what a callee reads is as new as what its caller has written and read, and
 * what it has written and read itself is known to the session of the request that called. Two things are told each way: how far the
 * databases had got, where they have followers, and the number of the newest invalidation, where processes have caches.
 */
import type { CallReads } from "../../call/index.ts";
import { inReadContext, ReadContext, readContext } from "../../database/index.ts";
import type { WriteMarks } from "../../session/index.ts";
import { positionsOf, seenOf } from "./read-units.ts";

/** Numbers of changes that know of those made by callees, so that sessions are told of them as of one's own. */
export interface JoinedMarks extends WriteMarks {
  /** A call has changed something, whose number this is. */
  heardOf(number: number): void;
}

/** The marks of this process with those of what it calls; undefined where there are none. */
export function joinedMarks(marks: WriteMarks | undefined): JoinedMarks | undefined {
  if (marks === undefined) return undefined;
  let newest = 0;
  let calls = 0;
  return {
    count: () => marks.count() + calls,
    newest: () => Math.max(newest, marks.newest()),
    settled: async () => Math.max(newest, await marks.settled()),
    catchUp: (number) => marks.catchUp(number),
    heardOf(number) {
      calls++;
      newest = Math.max(newest, number);
    },
  };
}

/** Longest note; whoever has seen more shards than it holds has their newest read instead. */
const noteCharactersMax = 3_000;
/** No shard's number, so that a unit's answer for it is the one for all shards. */
const anyShard = -1;

/** What a note says. */
interface Note {
  /** Leaders have to answer: the caller reads in order to decide, or nobody knows what it has seen. */
  readonly isHeld: boolean;
  /** The newest invalidation that the caller knows of, and whether it may be the work's own. */
  readonly mark: number;
  readonly hasWritten: boolean;
  readonly seen: Readonly<Record<string, string>>;
}

/** Makes the joint. `hasFollowers`: whether any shard has; without, leaders answer everything anyhow. */
export function joinedReads(options: {
  readonly hasFollowers: boolean;
  readonly marks: JoinedMarks | undefined;
  /** What a served call waits for ends after this in ms. */
  readonly limitMs: number;
}): CallReads {
  const { hasFollowers, marks, limitMs } = options;

  async function noteOf(context: ReadContext | undefined, hasWritten: boolean, mark: number): Promise<string> {
    const isHeld = hasFollowers && (context === undefined || context.needsLeader(anyShard));
    const seen = context === undefined ? {} : seenOf(await context.settle());
    const text = noteText({ isHeld, mark, hasWritten, seen });
    return text.length <= noteCharactersMax ? text : noteText({ isHeld: true, mark, hasWritten, seen: {} });
  }

  return {
    async carry() {
      if (!hasFollowers && marks === undefined) return undefined;
      return noteOf(hasFollowers ? readContext() : undefined, false, marks?.newest() ?? 0);
    },

    async merge(text) {
      const note = readNote(text);
      readContext()?.require(positionsOf(note.seen));
      if (marks === undefined || note.mark === 0) return;
      if (note.hasWritten) marks.heardOf(note.mark);
      await marks.catchUp(note.mark);
    },

    async serve({ note: text, isSafe }, work) {
      const note = readNote(text ?? "");
      if (marks !== undefined && note.mark > 0) await marks.catchUp(note.mark);
      const before = marks?.count();
      const context = hasFollowers ? new ReadContext(positionsOf(note.seen)) : undefined;
      if (context !== undefined) context.deadlineAt = performance.now() + limitMs;
      if (!isSafe || note.isHeld) context?.hold();
      const result = await (context === undefined ? work() : inReadContext(context, work));
      if (!hasFollowers && marks === undefined) return { result, note: undefined };
      try {
        const hasWritten = before !== marks?.count();
        const mark = hasWritten ? await marks?.settled() : marks?.newest();
        return { result, note: await noteOf(context, hasWritten, mark ?? 0) };
      } finally {
        context?.end();
      }
    },

    async serveHere({ isSafe }, work) {
      const context = readContext();
      if (isSafe || context === undefined || context.needsLeader(anyShard)) return work();
      context.hold();
      try {
        return await work();
      } finally {
        context.release();
      }
    },
  };
}

function noteText({ isHeld, mark, hasWritten, seen }: Note): string {
  const positions = Object.entries(seen).map(([shard, position]) => `${shard}=${position}`);
  return `${isHeld ? "h" : "o"}${hasWritten ? "w" : "r"}${mark};${positions.join(",")}`;
}

/** What cannot be read asks for the newest. */
function readNote(text: string): Note {
  const [, held, kind, mark, positions = ""] = /^([ho])([wr])(\d{1,16});([0-9a-f=,]*)$/.exec(text) ?? [];
  const pairs = positions === "" ? [] : positions.split(",").map((pair) => pair.split("=") as [string, string]);
  return {
    isHeld: held !== "o",
    mark: Number(mark ?? 0),
    hasWritten: kind === "w",
    seen: Object.fromEntries(pairs),
  };
}
