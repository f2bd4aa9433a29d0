/** The broker's store in simulated histories (see `simulation/simulated-queue.ts`), and what they found, told one by one. */
import { readFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { BrokerDelivery } from "../../src/queue/broker.ts";
import { brokerStore } from "../../src/queue/broker-store.ts";
import type { ClaimedJob, Outcome } from "../../src/queue/job-store.ts";
import type { ParkedJob, Parking } from "../../src/queue/parking.ts";
import { type MakeStore, simulate } from "./simulation/simulated-queue.ts";

const histories = 600;
/** Seeds that found something once. */
const regressions = [18, 70, 88, 178, 236, 239, 241, 283];

describe("the broker's store", { timeout: 60_000 }, () => {
  it(`keeps its promises in ${histories} histories`, async () => {
    const first = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 2 ** 31);
    console.info(`broker store: RUNGS_TEST_SEED=${first}`);
    const totals = { messages: 0, tries: 0, parked: 0, deaths: 0 };
    for (const seed of [...regressions, ...Array.from({ length: histories }, (_, index) => first + index)]) {
      const { violations, ...counts } = await simulate(seed, brokerStore);
      expect({ seed, violations }).toEqual({ seed, violations: [] });
      for (const name of ["messages", "tries", "parked", "deaths"] as const) totals[name] += counts[name];
    }
    console.info(`broker store: ${JSON.stringify(totals)}`);
    // Much went wrong, and not everything.
    expect(totals.tries).toBeGreaterThan(2 * totals.messages);
    expect(totals.parked).toBeGreaterThan(totals.messages / 2);
    expect(totals.deaths).toBeGreaterThan(histories / 10);
  });

  it("makes the same history of the same seed", async () => {
    const [first, second] = [await simulate(7, brokerStore), await simulate(7, brokerStore)];
    expect(second).toEqual(first);
  });
});

/** Each takes the place of a piece of the store that is there once. */
const plantedFaults: readonly (readonly [what: string, from: string, to: string, found: RegExp])[] = [
  [
    "acknowledges before it parks",
    "      await this.options.parking.park(this.shard, jobs);",
    "      for (const { delivery } of batch) delivery.ack();\n      await this.options.parking.park(this.shard, jobs);",
    /acknowledged and neither done nor parked/,
  ],
  ["asks no shard", "blocked[index] === true", "false", /came before/],
  [
    "begins what a shard did not answer about",
    'if (blocked === undefined) found.set(each, "unknown");\n          else if (blocked[index] === true)',
    "if (blocked?.[index] === true)",
    /came before/,
  ],
  ["parks a crowd while one of it is under way", "this.crowded.add(key)", "this.parkAll(key)", /came before/],
  [
    "releases a key before what failed of it is on its way",
    "      this.underWay.delete(job.sequence);\n",
    "      this.underWay.delete(job.sequence);\n      this.release(held.key);\n",
    /came before/,
  ],
  [
    "does not know what is on its way into the table",
    "(key !== undefined && this.parking.has(key))",
    "false",
    /came before/,
  ],
  ["takes a repeated message for a new one", "delivery.isRepeated || ", "", /killed its process/],
  ["parks what is repeated before those of its key that wait", " || staying.has(key)", "", /came before/],
  [
    "parks in the wrong order",
    "this.arrivals.push(arrival)",
    "this.arrivals.unshift(arrival)",
    /came before|neither done/,
  ],
  [
    "gives up what could not be parked",
    "      await new Promise((resolve) => setTimeout(resolve, parkRetryMs).unref());\n",
    "      this.arrivals = this.arrivals.slice(batch.length);\n",
    /nobody handles/,
  ],
  ["tries to park without a wait", "setTimeout(resolve, parkRetryMs)", "setTimeout(resolve, 1)", /busy loop/],
  ["asks a shard that is down again and again", "now >= (this.silent.get(place) ?? now)", "true", /busy loop/],
  [
    "acknowledges what is handed back",
    "else held.delivery.handBack();",
    "else held.delivery.ack();",
    /neither done nor parked/,
  ],
  [
    "begins several of a key at once",
    "        if (key !== undefined) this.busy.add(key);\n        taken.push(held);",
    "        taken.push(held);",
    /under way at once/,
  ],
  [
    "puts what could not be asked about behind the others",
    "[held, ...(this.waiting.get(handler) ?? [])]",
    "[...(this.waiting.get(handler) ?? []), held]",
    /came before/,
  ],
  [
    "loses what could not be asked about",
    '      if (state === "unknown") {\n        this.putBack(held);',
    '      if (state === "unknown") {',
    /nobody handles|keeps/,
  ],
  [
    "notes no steps",
    "return this.options.parking.noteStep(tx, job, step);",
    'return Promise.resolve("first");',
    /was made [2-9] times/,
  ],
  [
    "never lets a key go",
    "    this.busy.delete(key);\n    if (this.crowded",
    "    if (this.crowded",
    /nobody handles|keeps/,
  ],
  [
    "begins what is lost",
    "if (state === undefined && held.delivery.begin())",
    "if (state === undefined)",
    /neither done|under way|killed/,
  ],
];

describe("a planted fault is found by the histories when the store", { timeout: 60_000 }, () => {
  it.each(plantedFaults)("%s", async (_what, from, to, found) => {
    const makeStore = await storeWith(from, to);
    const told: string[] = [];
    for (let seed = 1; seed <= 2_000; seed++) {
      const { violations } = await simulate(seed, makeStore);
      told.push(...violations);
      if (violations.some((violation) => found.test(violation))) {
        console.info(`found by seed ${seed}`);
        return;
      }
    }
    expect(told).toContain(found.source);
  });
});

/** The store as its source would be with that change. */
async function storeWith(from: string, to: string): Promise<MakeStore> {
  const source = await readFile(new URL("../../src/queue/broker-store.ts", import.meta.url), "utf8");
  expect(source.split(from), `"${from}" has to be there once`).toHaveLength(2);
  const changed = stripTypeScriptTypes(source.replace(from, () => to));
  const made: unknown = await import(`data:text/javascript;base64,${Buffer.from(changed).toString("base64")}`);
  return (made as { brokerStore: MakeStore }).brokerStore;
}

describe("the broker's store", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  it("lets no shard that refuses to answer take the room of others", async () => {
    const { store, deliver, asked, claim } = storeOver({ blocked: (shard) => (shard === 0 ? "refused" : []) });
    deliver({ id: "a", key: "k", shard: 0 });
    deliver({ id: "b", key: "l", shard: 1 });
    expect(await claim(1)).toEqual([]);
    expect(await claim(1)).toEqual(["b"]);
    for (let call = 0; call < 10; call++) expect(await claim(1)).toEqual([]);
    expect(asked).toEqual([0, 1]);
    vi.advanceTimersByTime(250);
    expect(await claim(1)).toEqual([]);
    expect(asked).toEqual([0, 1, 0]);
    await store.leave("worker");
  });

  it("waits a second for a shard that does not answer, and asks it again once it has", async () => {
    let answer: (blocked: boolean[]) => void = () => {};
    let answers = (_shard: number): Promise<boolean[]> => new Promise((resolve) => (answer = resolve));
    const { deliver, asked, claim } = storeOver({ blocked: (shard) => (shard === 0 ? answers(shard) : []) });
    deliver({ id: "a", key: "k", shard: 0 });
    deliver({ id: "b", key: "l", shard: 1 });
    const first = claim(2);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(await first).toEqual(["b"]);
    await vi.advanceTimersByTimeAsync(60_000);
    deliver({ id: "c", key: "m", shard: 1 });
    expect(await claim(2)).toEqual(["c"]);
    expect(asked).toEqual([0, 1, 1]);
    answers = async () => [];
    answer([false]);
    await vi.advanceTimersByTimeAsync(250);
    expect(await claim(2)).toEqual(["a"]);
  });

  it("keeps a repeated message behind one of its key that waits for room", async () => {
    const { deliver, claim, parked, settle } = storeOver({});
    deliver({ id: "other", key: "l" });
    deliver({ id: "a", key: "k" });
    deliver({ id: "b", key: "k", isRepeated: true });
    expect(await claim(1)).toEqual(["other"]);
    await vi.advanceTimersByTimeAsync(1);
    expect(parked).toEqual([]);
    await settle("other");
    expect(await claim(1)).toEqual(["a"]);
    await settle("a");
    expect(await claim(1)).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(parked).toEqual(["b"]);
  });

  it("forgets a crowd whose first one did not begin", async () => {
    let isDown = true;
    const { deliver, claim, parked, settle } = storeOver({ blocked: () => (isDown ? "refused" : []) });
    const lost = ["a", "b", "c", "d"].map((id) => deliver({ id, key: "k" }));
    expect(await claim(5)).toEqual([]);
    isDown = false;
    for (const each of lost) each.lose();
    vi.advanceTimersByTime(250);
    deliver({ id: "e", key: "k" });
    expect(await claim(5)).toEqual(["e"]);
    deliver({ id: "f", key: "k" });
    await settle("e");
    await vi.advanceTimersByTimeAsync(1);
    expect(parked).toEqual([]);
    expect(await claim(5)).toEqual(["f"]);
  });

  it("does not pile up what is lost while there is no room to claim", async () => {
    const { store, deliver } = storeOver({});
    for (let round = 0; round < 100; round++) deliver({ id: `m${round}`, key: "k", publishedAt: round }).lose();
    deliver({ id: "last", key: "k", publishedAt: 100 });
    expect((await store.oldestPublished())?.getTime()).toBeGreaterThanOrEqual(99);
  });

  it("keeps steps of what it cannot park, and lets go of what is lost meanwhile", async () => {
    const { store, deliver, claim } = storeOver({ isFull: true });
    const first = deliver({ id: "a", key: "k", isRepeated: true, publishedAt: 1 });
    deliver({ id: "b", key: "l", isRepeated: true, publishedAt: 2 });
    expect(await claim(5)).toEqual([]);
    expect((await store.oldestPublished())?.getTime()).toBe(1);
    first.lose();
    await vi.advanceTimersByTimeAsync(300);
    expect((await store.oldestPublished())?.getTime()).toBe(2);
  });
});

/** A store over tables that answer as told, with one handler. */
function storeOver(tables: {
  readonly blocked?: (shard: number) => readonly boolean[] | Promise<boolean[]> | "refused";
  readonly isFull?: boolean;
}) {
  const asked: number[] = [];
  const parked: string[] = [];
  const errors: (string | null)[] = [];
  const begun = new Map<string, ClaimedJob>();
  const parking: Parking = {
    async blocked(shard) {
      asked.push(shard);
      const answer = await tables.blocked?.(shard);
      if (answer === "refused") throw new Error("connection refused");
      return [...(answer ?? [])];
    },
    async park(_shard, jobs: readonly ParkedJob[]) {
      if (tables.isFull === true) throw new Error("no space left");
      parked.push(...jobs.map(({ message }) => message.id));
      errors.push(...jobs.map(({ error }) => error));
    },
    noteStep: async () => "first",
  };
  const clock = { now: Date.now, monotonic: Date.now };
  const store = brokerStore({ name: "broker", parking, clock, onReady: () => {}, onParked: () => {} });
  return {
    store,
    asked,
    parked,
    errors,
    deliver(options: { id: string; key: string; shard?: number; isRepeated?: boolean; publishedAt?: number }) {
      const { id, key, shard = 0, isRepeated = false, publishedAt = 0 } = options;
      const message = { id, key, shard, event: "a.b", version: 1, payload: null, publishedAt: new Date(publishedAt) };
      let wasLost = false;
      const delivery: BrokerDelivery = {
        ...{ message, handler: "handler", isRepeated },
        begin: () => !wasLost,
        isLost: () => wasLost,
        ack: () => {},
        handBack: () => {},
      };
      store.deliver(delivery);
      return {
        lose() {
          wasLost = true;
        },
      };
    },
    async claim(slots: number) {
      const jobs = await store.claim("worker", [{ handler: "handler", slots }]);
      for (const job of jobs) begun.set(job.jobId, job);
      return jobs.map(({ jobId }) => jobId);
    },
    async settle(id: string, outcome: Outcome = { kind: "done" }) {
      const job = begun.get(id);
      if (job !== undefined) await store.settle("worker", [{ job, outcome }]);
    },
  };
}
