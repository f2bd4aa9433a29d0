/** Virtual time: every timer of this process runs by it while it is installed, each on the machine that set it. */
import { AsyncLocalStorage } from "node:async_hooks";
import type { Clock } from "../../../src/kernel/clock.ts";

/** What can die or be frozen. What was to happen on it then never happens, or once it thaws. */
export interface Machine {
  readonly name: string;
  isDead: boolean;
  frozenUntil: number;
}

interface Event {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
  readonly machine: Machine | undefined;
  isCancelled: boolean;
}

/** The machine that is running. */
const here = new AsyncLocalStorage<Machine | undefined>();

/** Events in the order of their times; those of one time in the order they were made. */
export class SimulatedTime implements Clock {
  private nowMs = 0;
  private made = 0;
  private readonly events: Event[] = [];

  now = (): number => this.nowMs;
  monotonic = (): number => this.nowMs;

  /** On `machine`; undefined: outside of all of them. */
  after(ms: number, run: () => void, machine?: Machine): Event {
    const event = { at: this.nowMs + ms, order: this.made++, run, machine, isCancelled: false };
    let low = 0;
    let high = this.events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.events[middle] as Event).at <= event.at) low = middle + 1;
      else high = middle;
    }
    this.events.splice(low, 0, event);
    return event;
  }

  async run(untilMs: number, isOver: () => boolean = () => false): Promise<void> {
    for (;;) {
      // Everything that follows from the last event without waiting happens first.
      await new Promise((resolve) => setImmediate(resolve));
      if (isOver() || (this.events[0]?.at ?? Number.POSITIVE_INFINITY) > untilMs) return;
      const event = this.events.shift() as Event;
      this.nowMs = Math.max(this.nowMs, event.at);
      const { machine } = event;
      if (event.isCancelled || machine?.isDead === true) continue;
      if (machine !== undefined && machine.frozenUntil > this.nowMs) {
        this.after(machine.frozenUntil - this.nowMs, event.run, machine);
      } else here.run(machine, event.run);
    }
  }

  /** Puts itself in the place of the machine's timers; gives the way back. */
  install(): () => void {
    const { setTimeout, setInterval, clearTimeout, clearInterval } = globalThis;
    const timer = (next: (fire: () => void) => Event) => {
      const fire = { event: undefined as Event | undefined, isCleared: false };
      return Object.assign(fire, {
        unref: () => fire,
        start(run: () => void) {
          fire.event = next(() => !fire.isCleared && run());
        },
      });
    };
    const set = (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => {
      const machine = here.getStore();
      const made = timer((fire) => this.after(Math.max(1, ms), fire, machine));
      made.start(() => run(...args));
      return made;
    };
    const repeat = (run: () => void, ms: number) => {
      const machine = here.getStore();
      const made = timer((fire) => this.after(ms, fire, machine));
      const again = () => {
        made.start(again);
        run();
      };
      made.start(again);
      return made;
    };
    const clear = (made?: ReturnType<typeof timer>) => {
      if (made === undefined) return;
      made.isCleared = true;
      if (made.event !== undefined) made.event.isCancelled = true;
    };
    Object.assign(globalThis, {
      setTimeout: set,
      setInterval: repeat,
      clearTimeout: clear,
      clearInterval: clear,
    });
    return () => void Object.assign(globalThis, { setTimeout, setInterval, clearTimeout, clearInterval });
  }
}
