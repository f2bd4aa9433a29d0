/**
 * What a commit says beside the offset, so that whoever takes the partition over knows what was done above it, and what may have
 * been begun. Kafka keeps it as text with the offset, up to 4,096 bytes (`offset.metadata.max.bytes`).
 */

/** How far a handler is in one partition. Offsets count from the partition's beginning. */
export interface Progress {
  /** Everything below is done. */
  readonly low: number;
  /** Below it, and not below {@link Progress.low}, everything is done but {@link Progress.open}. */
  readonly seen: number;
  /** Not done, below {@link Progress.seen}, ascending. */
  readonly open: readonly number[];
  /** Those of them that were never begun. */
  readonly fresh: readonly number[];
  /** From {@link Progress.seen} up to it messages may have been begun; beyond it none was. */
  readonly begun: number;
}

const bytesMax = 3_000;

/** What nobody has worked on. */
export function freshProgress(low: number): Progress {
  return { low, seen: low, open: [], fresh: [], begun: low };
}

/**
 * The text for a commit at {@link Progress.low}. What does not fit is left out, which only makes more messages count as possibly
 * begun.
 */
export function progressText({ low, seen, open, fresh, begun }: Progress): string {
  const from = (offsets: readonly number[]) => offsets.map((offset) => offset - low);
  const text = JSON.stringify({ v: 1, b: begun - low, t: seen - low, o: from(open), f: from(fresh) });
  if (text.length <= bytesMax) return text;
  return JSON.stringify({ v: 1, b: Math.max(begun, seen) - low, t: 0, o: [], f: [] });
}

/**
 * Reads a commit. A text that is none of ours, such as that of a tool that set the offset, or of one committed before anything was
 * consumed, says that nothing was begun.
 */
export function progressOf(low: number, text: string | null): Progress {
  let content: unknown;
  try {
    content = JSON.parse(text ?? "");
  } catch {
    return freshProgress(low);
  }
  if (typeof content !== "object" || content === null || !("v" in content) || content.v !== 1)
    return freshProgress(low);
  const { b, t, o, f } = content as unknown as { b: number; t: number; o: number[]; f: number[] };
  const at = (offsets: readonly number[]) => offsets.map((offset) => offset + low);
  return { low, seen: low + t, open: at(o), fresh: at(f), begun: low + b };
}

/** What is to be done with the message at this offset. */
export function fateOf(progress: Progress, offset: number): "done" | "repeated" | "fresh" {
  if (offset < progress.low) return "done";
  if (offset >= progress.seen) return offset < progress.begun ? "repeated" : "fresh";
  if (!progress.open.includes(offset)) return "done";
  return progress.fresh.includes(offset) ? "fresh" : "repeated";
}
