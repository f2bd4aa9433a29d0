/** The parts of the Kafka driver that need no Kafka: addresses, shares of a group, and what a commit says. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../src/kernel/clock.ts";
import type { BrokerDelivery, BrokerMessage } from "../../src/queue/broker.ts";
import { parseKafkaAddress } from "../../src/queue/drivers/kafka-address.ts";
import {
  assignmentBytes,
  assignmentOf,
  assignPartitions,
  type Claim,
  claimBytes,
  claimOf,
} from "../../src/queue/drivers/kafka-assignment.ts";
import {
  fateOf,
  freshProgress,
  type Progress,
  progressOf,
  progressText,
} from "../../src/queue/drivers/kafka-progress.ts";
import { KafkaSequence } from "../../src/queue/drivers/kafka-sequence.ts";

describe("an address of Kafka", () => {
  it("names brokers, TLS and a login", () => {
    expect(parseKafkaAddress("kafka://kafka-1")).toEqual({
      nodes: [{ host: "kafka-1", port: 9_092 }],
      isTls: false,
      sasl: undefined,
    });
    expect(parseKafkaAddress("kafka+ssl://a%40b:p%2F%3Aq@one:9093,[::1]:9094?mechanism=scram-sha-256")).toEqual({
      nodes: [
        { host: "one", port: 9_093 },
        { host: "::1", port: 9_094 },
      ],
      isTls: true,
      sasl: { mechanism: "SCRAM-SHA-256", username: "a@b", password: "p/:q" },
    });
  });

  it.each([
    ["kafka://", "not of a form"],
    ["amqp://host", "not of a form"],
    ["kafka://host:0", "each host"],
    ["kafka://host:70000", "each host"],
    ["kafka://a,,b", "each host"],
    ["kafka://user@host", "without a password"],
    ["kafka://u:%zz@host", "%25"],
    ["kafka://u:hush@host?mechanism=GSSAPI", "mechanism must be"],
    ["kafka://u:hush@host?retries=3", "not known"],
  ])("that cannot be used is refused without being repeated: %s", (url, why) => {
    let message = "";
    try {
      parseKafkaAddress(url);
    } catch (error) {
      expect(error).toMatchObject({ code: "CONFIG_INVALID" });
      message = (error as Error).message;
    }
    expect(message).toContain(why);
    expect(message).not.toContain("hush");
  });
});

describe("shares of a group", () => {
  /** What the members of a group come to, joining again and again as those do that have to give something up. */
  function settle(members: readonly string[], count: number, before: ReadonlyMap<string, readonly number[]>) {
    let held = new Map(members.map((member) => [member, [...(before.get(member) ?? [])]]));
    for (let generation = 1; generation < 10; generation++) {
      const claims = [...held].map(([memberId, owned]): Claim => ({ memberId, owned, generation }));
      const assigned = assignPartitions(claims, count);
      for (const [member, partitions] of assigned) {
        for (const [other, owned] of held) {
          const isTaken = other !== member && partitions.some((partition) => owned.includes(partition));
          expect(isTaken, `${member} got what ${other} held`).toBe(false);
        }
      }
      const isOver = [...assigned].every(([member, partitions]) => partitions.length === held.get(member)?.length);
      held = assigned;
      if (isOver && [...held.values()].flat().length === count) return { held, rounds: generation };
    }
    throw new Error("the group did not settle");
  }

  it("are equal, complete, never taken from a holder, and settled after two rounds", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 24 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        (count, first, then) => {
          const names = (length: number) => Array.from({ length }, (_, index) => `member ${index}`);
          const before = settle(names(first), count, new Map()).held;
          const { held, rounds } = settle(names(then), count, before);
          const sizes = [...held.values()].map(({ length }) => length);
          expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
          expect([...held.values()].flat().sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i));
          expect(rounds).toBeLessThanOrEqual(3);
          const moved = [...held].flatMap(([member, partitions]) =>
            partitions.filter((partition) => before.has(member) && !before.get(member)?.includes(partition)),
          );
          // Nobody who stays gets anything new while others come.
          if (then >= first) expect(moved).toEqual([]);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("of a claim that another has overtaken are the later holder's", () => {
    const assigned = assignPartitions(
      [
        { memberId: "old", owned: [0, 1], generation: 3 },
        { memberId: "new", owned: [0, 1], generation: 5 },
      ],
      2,
    );
    expect(assigned).toEqual(
      new Map([
        ["new", [0]],
        ["old", []],
      ]),
    );
  });

  it("are read as they were written, and by Kafka's own tools", () => {
    expect(claimOf("m", claimBytes("a.topic", { owned: [3, 7], generation: 9 }))).toEqual({
      memberId: "m",
      owned: [3, 7],
      generation: 9,
    });
    expect(claimOf("m", Buffer.from("nonsense"))).toEqual({ memberId: "m", owned: [], generation: -1 });
    expect(assignmentOf(assignmentBytes("a.topic", [0, 2, 300]))).toEqual([0, 2, 300]);
    expect(assignmentOf(Buffer.alloc(0))).toEqual([]);
  });
});

describe("what a commit says", () => {
  const progress: Progress = { low: 100, seen: 110, open: [100, 104], fresh: [104], begun: 130 };

  it("tells the done from the begun and the new", () => {
    const read = progressOf(100, progressText(progress));
    expect(read).toEqual(progress);
    expect([99, 100, 101, 104, 109, 110, 129, 130].map((offset) => fateOf(read, offset))).toEqual([
      ...["done", "repeated", "done", "fresh", "done", "repeated", "repeated", "fresh"],
    ]);
  });

  it("of another tool means that nothing was begun", () => {
    for (const text of [null, "", "{}", "reset by hand", '{"v":2}']) {
      expect(progressOf(7, text)).toEqual(freshProgress(7));
    }
  });

  it("always fits, and then errs on the side of what may have been begun", () => {
    const open = Array.from({ length: 5_000 }, (_, index) => 2 * index);
    const text = progressText({ low: 0, seen: 10_000, open, fresh: [], begun: 10_064 });
    expect(text.length).toBeLessThan(4_096);
    const read = progressOf(0, text);
    for (const offset of [0, 1, 9_999, 10_063]) expect(fateOf(read, offset)).toBe("repeated");
    expect(fateOf(read, 10_064)).toBe("fresh");
  });
});

describe("a partition in one process", () => {
  const message = (offset: number, key: string | null): BrokerMessage => ({
    ...{ id: `id ${offset}`, event: "thing.happened", version: 1, key, payload: null, shard: 0 },
    publishedAt: new Date(0),
  });
  const open = (progress: Progress, held = { is: true }) =>
    new KafkaSequence({
      ...{ partition: 0, handler: "work.note", progress, window: 8, clock: systemClock },
      isHeld: () => held.is,
      onSettled: () => {},
    });
  const add = (sequence: KafkaSequence, from: number, to: number, key: string | null = null) =>
    sequence.add(
      Array.from({ length: to - from }, (_, index) => ({ offset: from + index, message: message(from + index, key) })),
      to,
    );
  const take = (sequence: KafkaSequence) => {
    const taken: BrokerDelivery[] = [];
    for (let next = sequence.next(); next !== undefined; next = sequence.next()) taken.push(next);
    return taken;
  };

  it("delivers nothing before a commit has said that it may be begun", () => {
    const sequence = open(freshProgress(10));
    add(sequence, 10, 40);
    expect(sequence.needsMark).toBe(true);
    expect(sequence.next()).toBeUndefined();
    sequence.marked(sequence.progress().begun);
    expect(take(sequence).map((each) => each.message.id)).toEqual(
      Array.from({ length: 8 }, (_, index) => `id ${10 + index}`),
    );
  });

  it("whatever it may have begun is repeated to the next holder, whenever it dies", () => {
    const action = fc.oneof(
      fc.record({ kind: fc.constant("commit" as const) }),
      fc.record({ kind: fc.constant("fetch" as const), count: fc.integer({ min: 1, max: 9 }) }),
      fc.record({ kind: fc.constantFrom("begin" as const, "ack" as const, "handBack" as const), at: fc.nat(20) }),
    );
    fc.assert(
      fc.property(fc.array(action, { maxLength: 80 }), fc.boolean(), (actions, isClean) => {
        const sequence = open(freshProgress(0));
        const begun = new Set<string>();
        const done = new Set<string>();
        let committed = freshProgress(0);
        let taken: BrokerDelivery[] = [];
        for (const each of actions) {
          if (each.kind === "commit") {
            committed = progressOf(sequence.progress().low, progressText(sequence.progress()));
            sequence.marked(committed.begun);
          } else if (each.kind === "fetch") add(sequence, sequence.position, sequence.position + each.count);
          else {
            const delivery = taken[each.at];
            if (each.kind === "begin" && delivery?.begin() === true) begun.add(delivery.message.id);
            if (each.kind === "ack" && delivery?.isLost() === false && begun.has(delivery.message.id)) {
              delivery.ack();
              done.add(delivery.message.id);
            }
            if (each.kind === "handBack") delivery?.handBack();
          }
          taken = [...taken, ...take(sequence)];
        }
        if (isClean) {
          sequence.takeBack(true);
          committed = progressOf(sequence.lastProgress().low, progressText(sequence.lastProgress()));
        }
        for (let offset = 0; offset < sequence.position + 20; offset++) {
          const id = `id ${offset}`;
          const fate = fateOf(committed, offset);
          if (fate === "done") expect(done.has(id), `${id} was not done`).toBe(true);
          if (fate === "fresh") expect(begun.has(id), `${id} was begun`).toBe(false);
          // A clean end is exact.
          if (isClean) expect(fate).toBe(done.has(id) ? "done" : begun.has(id) ? "repeated" : "fresh");
        }
      }),
      { numRuns: 500 },
    );
  });

  it("commits below a stuck message only, and tells what is done above it", () => {
    const sequence = open(freshProgress(0));
    sequence.marked(8);
    add(sequence, 0, 6);
    const [, ...others] = take(sequence);
    for (const delivery of others) {
      expect(delivery.begin()).toBe(true);
      delivery.ack();
    }
    expect(sequence.progress()).toMatchObject({ low: 0, seen: 6, open: [0] });
    const next = open(progressOf(0, progressText(sequence.progress())));
    next.marked(100);
    add(next, 0, 10);
    expect(take(next).map((each) => [each.message.id, each.isRepeated])).toEqual([
      ...["id 0", "id 6", "id 7", "id 8", "id 9"].map((id) => [id, true]),
    ]);
  });

  it("takes back those of a key behind one that was handed back, and lets other keys pass", () => {
    const sequence = open(freshProgress(0));
    sequence.marked(100);
    add(sequence, 0, 2, "a");
    add(sequence, 2, 3, "b");
    const [first, second, other] = take(sequence);
    first?.begin();
    first?.handBack();
    expect([first?.isLost(), second?.isLost(), other?.isLost()]).toEqual([true, true, false]);
    add(sequence, 3, 4, "a");
    add(sequence, 4, 5, "c");
    expect(take(sequence).map((each) => each.message.id)).toEqual(["id 4"]);
  });

  it("loses everything at once when it is no longer held", () => {
    const held = { is: true };
    const sequence = open(freshProgress(0), held);
    sequence.marked(100);
    add(sequence, 0, 2);
    const [begun, waiting] = take(sequence);
    expect(begun?.begin()).toBe(true);
    held.is = false;
    expect([begun?.isLost(), waiting?.begin()]).toEqual([true, false]);
    begun?.ack();
    expect(sequence.progress().low).toBe(0);
  });
});
