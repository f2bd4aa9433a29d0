/** How late the event loop is: what every request of a process waits for before anything is done about it. */
import type { Clock } from "../kernel/clock.ts";

/** A probe that fires every `everyMs` and notes how much later it was. */
export interface LoopLateness {
  /** Greatest lateness in ms since the last call; a probe that is still due counts. */
  take(): number;
  stop(): void;
}

/** Starts the probe; it does not keep the process alive. `onTurn` is called whenever it fires: once a turn of a loop that is late. */
export function watchLoop(clock: Clock, onTurn: () => void = () => {}, everyMs = 10): LoopLateness {
  let worst = 0;
  let expected = clock.monotonic() + everyMs;
  const timer = setInterval(() => {
    const now = clock.monotonic();
    worst = Math.max(worst, now - expected);
    expected = now + everyMs;
    onTurn();
  }, everyMs).unref();
  return {
    take() {
      const lateness = Math.max(worst, clock.monotonic() - expected, 0);
      worst = 0;
      return lateness;
    },
    stop: () => clearInterval(timer),
  };
}
