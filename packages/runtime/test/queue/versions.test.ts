/** Events whose payloads change: chains of upcasts, and old and new processes side by side. */
import { until } from "@rungs/contract/queue-contract";
import { startTestRabbitmq, type TestRabbitmq } from "@rungs/contract/test-rabbitmq";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { silentLogger } from "../../src/kernel/log.ts";
import { rabbitmqBroker } from "../../src/queue/drivers/rabbitmq-broker.ts";
import { defineEvent, handle } from "../../src/queue/index.ts";
import { openQueueDatabase } from "./processes-of-queue.ts";

const euros = z.object({ id: z.int(), euros: z.number() });
const cents = z.object({ id: z.int(), cents: z.int() });
const money = z.object({ id: z.int(), amount: z.object({ cents: z.int(), currency: z.string() }) });

const fromEuros = (old: z.output<typeof euros>) => ({ id: old.id, cents: Math.round(old.euros * 100) });
const fromCents = ({ id, cents: amount }: z.output<typeof cents>) => ({
  id,
  amount: { cents: amount, currency: "EUR" },
});

const paid1 = defineEvent("order.paid", euros);
const paid2 = defineEvent("order.paid", cents, { version: 2, upcasts: { 1: fromEuros } });
const paid3 = defineEvent("order.paid", money, { version: 3, upcasts: { 1: fromEuros, 2: fromCents } });

describe("upcasts", () => {
  it("lead from each older version to the event's own", () => {
    expect(paid3.parse({ id: 1, euros: 2.5 }, 1)).toEqual({ id: 1, amount: { cents: 250, currency: "EUR" } });
    expect(paid3.parse({ id: 1, cents: 250 }, 2)).toEqual({ id: 1, amount: { cents: 250, currency: "EUR" } });
    expect(paid3.parse({ id: 1, amount: { cents: 250, currency: "USD" } })).toMatchObject({
      amount: { currency: "USD" },
    });
  });

  it("of any length apply each step once and in order, from any version on", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.nat(), (version, seed) => {
        const steps = Array.from({ length: version - 1 }, (_, index) => index + 1);
        const event = defineEvent("thing.noted", z.object({ path: z.array(z.int()) }), {
          version,
          // The type cannot follow a chain whose length is not known.
          upcasts: Object.fromEntries(
            steps.map((step) => [step, (old: { path: number[] }) => ({ path: [...old.path, step] })]),
          ) as Record<never, never>,
        });
        const from = 1 + (seed % version);
        expect(event.parse({ path: [] }, from)).toEqual({ path: steps.slice(from - 1) });
        expect(() => event.parse({ path: [] }, version + 1)).toThrow(`has version ${version + 1}`);
      }),
    );
  });

  it("are refused where they lead nowhere or leave a gap, and need the schema to take what they give", () => {
    const invalid = expect.objectContaining({ code: "CONFIG_INVALID" });
    const same = (old: { id: number }) => old;
    const schema = z.object({ id: z.int() });
    expect(() => defineEvent("a", schema, { upcasts: { 1: same } })).toThrow(invalid);
    expect(() => defineEvent("a", schema, { version: 3, upcasts: { 1: same } })).toThrow(invalid);
    expect(() => defineEvent("a", schema, { version: 0 })).toThrow(invalid);
    expect(() => defineEvent("a", schema, { version: 1.5 })).toThrow(invalid);
    const event = defineEvent("a", schema, { version: 3, upcasts: { 2: same } });
    const failing = defineEvent("a", schema, { version: 2, upcasts: { 1: (old: { at: { id: number } }) => old.at } });
    const wrong = expect.objectContaining({ code: "EVENT_INVALID" });
    expect(() => event.parse({ id: 1 }, 1)).toThrow(wrong);
    expect(() => event.parse({ id: "x" }, 2)).toThrow(wrong);
    expect(() => failing.parse(null, 1)).toThrow(wrong);
    // @ts-expect-error -- the last one must give what the schema takes
    defineEvent("a", cents, { version: 2, upcasts: { 1: (old: { id: number }) => ({ id: old.id, cents: "1" }) } });
    // @ts-expect-error -- each must give what the next one takes
    defineEvent("a", money, { version: 3, upcasts: { 1: (old: { id: number }) => old, 2: fromCents } });
  });
});

let rabbitmq: Promise<TestRabbitmq> | undefined;
afterAll(async () => (await rabbitmq)?.stop());

describe.each(["the job table", "RabbitMQ"])("old and new processes side by side over %s", (carrier) => {
  const brokerOf = async () => {
    rabbitmq ??= startTestRabbitmq();
    return rabbitmqBroker({ url: (await rabbitmq).url, prefix: "versions", partitions: 2 });
  };

  it("handle what they know: newer messages wait for a newer process without losing a try, and keys stay in order", async () => {
    const database = await openQueueDatabase(carrier === "RabbitMQ" ? brokerOf : undefined);
    const seen: { readonly by: number; readonly id: number; readonly attempt: number; readonly cents: number }[] = [];
    const warnings: unknown[] = [];
    try {
      const old = await database.process(
        [
          {
            ...handle(
              paid1,
              async ({ payload, attempt }) => {
                seen.push({ by: 1, id: payload.id, attempt, cents: payload.euros * 100 });
              },
              { attemptsMax: 1 },
            ),
            name: "books.enter",
          },
        ],
        { ...silentLogger, warn: (fields: object) => void warnings.push(fields) },
      );
      const next = await database.process([
        {
          ...handle(
            paid2,
            async ({ payload, attempt }) => {
              seen.push({ by: 2, attempt, ...payload });
            },
            { attemptsMax: 1 },
          ),
          name: "books.enter",
        },
      ]);
      const first = await old.start();
      for (let id = 0; id < 10; id++) await next.publish(paid2, { id, cents: 100 }, { key: `k${id % 2}` });
      for (let id = 10; id < 14; id++) await old.publish(paid1, { id, euros: 1 }, { key: `k${id % 2}` });
      await old.publish(paid1, { id: 100, euros: 1 });
      // The old one handles its own, and leaves the rest alone.
      await until(
        () => seen.length === 1 && warnings.length > 0 && first.stats().every(({ claimed }) => claimed === 0),
      );
      expect(seen).toEqual([{ by: 1, id: 100, attempt: 1, cents: 100 }]);
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toMatchObject({ handler: "books.enter", version: 2, known: 1 });
      await next.start();
      await until(() => seen.length === 15);
      expect(seen.every(({ attempt, cents }) => attempt === 1 && cents === 100)).toBe(true);
      expect(seen.filter(({ id }) => id < 10).every(({ by }) => by === 2)).toBe(true);
      for (const key of [0, 1]) {
        const ids = seen.flatMap(({ id }) => (id !== 100 && id % 2 === key ? [id] : []));
        expect(ids).toEqual([...ids].sort((a, b) => a - b));
      }
      expect((await database.admin.counts()).reduce((sum, { dead }) => sum + dead, 0)).toBe(0);
    } finally {
      await database.close();
    }
  }, 40_000);
});

it("what an older version marks sensitive stays hidden from tools once the event has a newer one", async () => {
  const secret = () => z.string().meta({ sensitive: true });
  const old = defineEvent("mail.asked", z.object({ token: secret(), to: z.string() }));
  const renamed = defineEvent("mail.asked", z.object({ secret: secret(), to: z.string() }), {
    version: 2,
    upcasts: { 1: ({ token, to }: { token: string; to: string }) => ({ secret: token, to }) },
  });
  const database = await openQueueDatabase();
  try {
    const fails = async () => {
      throw new Error("no");
    };
    const before = await database.process([{ ...handle(old, fails), name: "mail.send" }]);
    await (await before.start()).stop();
    await before.publish(old, { token: "x-secret", to: "ann" });
    const after = await database.process([{ ...handle(renamed, fails), name: "mail.send" }]);
    await (await after.start()).stop();
    await after.publish(renamed, { secret: "x-secret", to: "ann" });
    const { jobs } = await database.admin.list({ limit: 10 });
    const shown = await Promise.all(jobs.map(({ id }) => database.admin.show(id)));
    expect(shown.flat().map(({ version, payload }) => ({ version, payload }))).toEqual([
      { version: 1, payload: { token: "[redacted]", to: "ann" } },
      { version: 2, payload: { secret: "[redacted]", to: "ann" } },
    ]);
  } finally {
    await database.close();
  }
});
