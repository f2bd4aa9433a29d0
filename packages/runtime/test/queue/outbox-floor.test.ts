/** Simulated histories of writers, beats and reads: no row is ever left below the floor. */
import { expect, it } from "vitest";
import { type Random, seededRandom } from "../../src/kernel/random.ts";
import type { Beat } from "../../src/queue/outbox.ts";
import { OutboxFloor } from "../../src/queue/outbox-floor.ts";

const histories = 300;
const steps = 400;

/** An outbox whose writers, as in PostgreSQL, lock first, draw then, and are seen once they have committed. */
class SimulatedOutbox {
  readonly visible = new Set<number>();
  lastSequence = 0;
  private readonly random: Random;
  private readonly open = new Map<string, number[]>();
  private transactions = 0;

  constructor(random: Random) {
    this.random = random;
  }

  /** Somebody else does something. */
  step(): void {
    const dice = this.random.next();
    const names = [...this.open.keys()];
    const name = names[Math.floor(this.random.next() * names.length)];
    if (name === undefined || (dice < 0.25 && names.length < 6)) this.open.set(`writer ${++this.transactions}`, []);
    else if (dice < 0.6) this.open.get(name)?.push(++this.lastSequence);
    else {
      const drawn = this.open.get(name) ?? [];
      if (dice < 0.9) for (const sequence of drawn) this.visible.add(sequence);
      this.open.delete(name);
    }
  }

  writers(): string[] {
    return [...this.open.keys()];
  }

  /** The lowest number that is visible or may become so. */
  lowest(): number {
    return Math.min(...this.visible, ...[...this.open.values()].flat(), this.lastSequence + 1);
  }
}

/** Gives how far the floor rose, or that a row was left below it. */
function run(seed: number, see: (beat: Beat) => Beat): number | "left behind" {
  const random = seededRandom(seed);
  const outbox = new SimulatedOutbox(random);
  let now = 0;
  const floor = new OutboxFloor({ now: () => now, monotonic: () => now });
  const others = () => {
    for (let count = Math.floor(random.next() * 4); count > 0; count--) outbox.step();
  };
  for (let step = 0; step < steps; step++) {
    now += 10;
    others();
    if (random.next() < 0.3) {
      const { lastSequence } = outbox;
      others();
      floor.note(see({ isActive: true, lastSequence, writers: outbox.writers() }));
      continue;
    }
    const published = floor.settled();
    const from = floor.value;
    others();
    const rowsMax = 1 + Math.floor(random.next() * 5);
    const rows = [...outbox.visible].filter((sequence) => sequence >= from).sort((a, b) => a - b);
    const taken = rows.slice(0, rowsMax);
    others();
    for (const sequence of taken) outbox.visible.delete(sequence);
    published(taken.at(-1));
    if (outbox.lowest() < floor.value) return "left behind";
  }
  return floor.value;
}

it(`leaves no row behind in ${histories} histories, and rises`, () => {
  const first = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 2 ** 31);
  console.info(`outbox floor: RUNGS_TEST_SEED=${first}`);
  let rose = 0;
  for (let seed = first; seed < first + histories; seed++) {
    const end = run(seed, (beat) => beat);
    expect(end, `seed ${seed}`).not.toBe("left behind");
    if (end !== "left behind" && end > 50) rose++;
  }
  expect(rose).toBeGreaterThan(histories / 2);
});

it("would leave rows behind if it did not wait for writers, which the histories show", () => {
  const ends = Array.from({ length: 50 }, (_, seed) => run(seed, (beat) => ({ ...beat, writers: [] })));
  expect(ends).toContain("left behind");
});

it("begins at the start again when numbers were taken back by a fail-over, and after half a minute", () => {
  let now = 0;
  const floor = new OutboxFloor({ now: () => now, monotonic: () => now });
  const rise = () => {
    floor.note({ isActive: true, lastSequence: 500, writers: [] });
    floor.settled()(undefined);
    return floor.value;
  };
  expect(rise()).toBe(501);
  floor.note({ isActive: true, lastSequence: 450, writers: [] });
  expect(floor.value).toBe(0);
  floor.settled()(undefined);
  expect(rise()).toBe(501);
  now += 30_001;
  floor.note({ isActive: true, lastSequence: 500, writers: ["1/2"] });
  expect(floor.value).toBe(0);
});
