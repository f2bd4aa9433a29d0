/** Notices servers that run and no longer answer, such as frozen ones: nothing else would ever end them. */

/** One server that is asked. */
export interface WatchedPart {
  /** Whether it should answer at all now. */
  readonly isMeant: () => boolean;
  /** Raises when there was no answer; within a bound of its own. */
  readonly ask: () => Promise<void>;
  /** How long it may be silent. */
  readonly silentMsMax: number;
  /** Ends it. */
  readonly end: () => void;
}

const everyMsDefault = 500;

/** Asks each again and again, and ends one that has been silent for too long. */
export function watchSilence(
  parts: readonly WatchedPart[],
  /** Default 500. */
  everyMs: number = everyMsDefault,
): { stop(): void } {
  const since = new Map<WatchedPart, number>();
  const asking = new Set<WatchedPart>();
  let isStopped = false;
  const look = async (part: WatchedPart) => {
    if (!part.isMeant()) {
      since.delete(part);
      return;
    }
    if (asking.has(part)) return;
    asking.add(part);
    const asked = performance.now();
    const isAnswered = await part.ask().then(
      () => true,
      () => false,
    );
    asking.delete(part);
    if (isStopped) return;
    if (isAnswered || !part.isMeant()) {
      since.delete(part);
      return;
    }
    const first = since.get(part);
    if (first === undefined) since.set(part, asked);
    else if (performance.now() - first >= part.silentMsMax) {
      since.delete(part);
      part.end();
    }
  };
  const timer = setInterval(() => void Promise.all(parts.map(look)), everyMs);
  return {
    stop() {
      isStopped = true;
      clearInterval(timer);
    },
  };
}
