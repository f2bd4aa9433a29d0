import { describe, expect, it } from "vitest";
import { openCopyAge } from "../../src/session/copy-age.ts";

/** Both ends, moved by hand. */
async function openByHand() {
  let now = 1_000;
  let written = 0;
  let shown = 0;
  let isReadable = true;
  const works: (() => void)[] = [];
  const listeners: (() => void)[] = [];
  const age = await openCopyAge({
    clock: { now: () => now, monotonic: () => now },
    every(_ms, work) {
      works.push(work);
      return () => works.splice(works.indexOf(work), 1);
    },
    line: {
      async write(beat) {
        written = beat;
      },
      async read() {
        if (!isReadable) throw new Error("planted");
        return shown;
      },
      onConnect: async (listener) => void listeners.push(listener),
    },
  });
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  await settle();
  return {
    age,
    works,
    /** Lets a beat go out, some time later, and the copy be looked at. */
    async pass(ms: number, options: { readonly copies?: number | "all" } = {}) {
      now += ms;
      works[0]?.();
      await settle();
      if (options.copies === "all") shown = written;
      else if (options.copies !== undefined) shown = options.copies;
      works[1]?.();
      await settle();
    },
    wait: (ms: number) => {
      now += ms;
    },
    connect() {
      for (const listener of listeners) listener();
    },
    fail: (isFailing: boolean) => {
      isReadable = !isFailing;
    },
  };
}

describe("a copy's age", () => {
  it("is unknown at first, and counts from when the newest beat that the copy shows was sent", async () => {
    const { age, pass, wait } = await openByHand();
    expect(age.ageMs()).toBe(Number.POSITIVE_INFINITY);
    await pass(500, { copies: "all" });
    expect(age.ageMs()).toBe(0);
    wait(300);
    expect(age.ageMs()).toBe(300);
    await pass(500);
    await pass(500);
    expect(age.ageMs()).toBe(1_300);
    await pass(0, { copies: 3 });
    expect(age.ageMs()).toBe(500);
  });

  it("is unknown after each new connection, until the copy shows a beat sent after it", async () => {
    const { age, pass, connect } = await openByHand();
    await pass(500, { copies: "all" });
    const { era } = age;
    connect();
    expect([age.ageMs(), age.era === era]).toEqual([Number.POSITIVE_INFINITY, false]);
    // The beat of before is still there.
    await pass(0);
    expect(age.ageMs()).toBe(Number.POSITIVE_INFINITY);
    await pass(500, { copies: "all" });
    expect(age.ageMs()).toBe(0);
    age.doubt();
    expect(age.ageMs()).toBe(Number.POSITIVE_INFINITY);
  });

  it("is unknown when the copy shows less than before, and grows while it cannot be asked", async () => {
    const { age, pass, fail } = await openByHand();
    await pass(500, { copies: "all" });
    await pass(500, { copies: "all" });
    fail(true);
    await pass(700, { copies: "all" });
    expect(age.ageMs()).toBe(700);
    fail(false);
    await pass(0, { copies: 1 });
    expect(age.ageMs()).toBe(Number.POSITIVE_INFINITY);
  });

  it("beats no more once it is closed", async () => {
    const { age, works } = await openByHand();
    age.close();
    expect(works).toEqual([]);
  });
});
