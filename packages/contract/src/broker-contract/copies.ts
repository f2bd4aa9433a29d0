/** The broker contract: declaring, and what comes out of it. */
import type { BrokerMessage } from "rungs/queue/broker";
import { describe, expect, it } from "vitest";
import { acknowledge, type BrokerHarness, messageOf, numberOf, until, wentOff } from "./harness.ts";

export function copiesContract({ withApp }: BrokerHarness): void {
  describe("copies", () => {
    const mailed = { event: wentOff.event, handler: "mail.send" };
    const other = { event: "thing.other", handler: "work.other" };
    const byNumber = (messages: readonly BrokerMessage[]) => messages.map(numberOf).sort((a, b) => a - b);

    it("go to each handler of the event and to no other", async () => {
      await withApp(
        async (app) => {
          const seen: string[] = [];
          await app.consume(
            (delivery) => {
              seen.push(`${delivery.handler} ${delivery.message.event} ${numberOf(delivery.message)}`);
              delivery.ack();
            },
            { subscriptions: [wentOff, mailed, other].map((each) => ({ ...each, room: 5 })) },
          );
          await app.first.publish([messageOf("a", 1), messageOf(null, 2), messageOf("a", 3, other.event)]);
          await until(() => seen.length === 5);
          expect(seen.sort()).toEqual([
            "mail.send thing.happened 1",
            "mail.send thing.happened 2",
            "work.note thing.happened 1",
            "work.note thing.happened 2",
            "work.other thing.other 3",
          ]);
        },
        [wentOff, mailed, other],
      );
    });

    it("are as they were published", async () => {
      await withApp(async (app) => {
        const { delivered } = await app.consume((delivery) => delivery.ack());
        const payloads = [
          {
            text: 'quote " line \n return \r nul \u0000 \u2028 😀 ä',
            at: new Date(0).toJSON(),
            list: [1, "two", null, {}],
          },
          "a text",
          [1.5, -1, 2 ** 53 - 1, 1e300],
          null,
          { bulk: "ü".repeat(32 * 1_024 - 6) },
        ];
        const sent = payloads.map(
          (payload, index): BrokerMessage => ({
            ...messageOf(index % 2 === 0 ? `key ü/${index} #"` : null, 0),
            payload,
            version: index + 1,
            publishedAt: new Date(1_700_000_000_123 + index),
            shard: index * 100,
          }),
        );
        await app.first.publish(sent);
        await until(() => delivered.length === sent.length);
        for (const message of sent) {
          const found = delivered.find((each) => each.message.id === message.id);
          expect(found).toMatchObject({ message, handler: wentOff.handler, isRepeated: false });
        }
      });
    });

    it("are waiting for a handler that nobody runs yet; one that is declared later gets what is published from then on", async () => {
      await withApp(async (app) => {
        await app.first.publish([messageOf("a", 1)]);
        await app.first.declare([mailed]);
        await app.first.publish([messageOf("a", 2)]);
        const early = await app.consume(acknowledge);
        const late = await app.consume(acknowledge, { subscriptions: [{ ...mailed, room: 5 }] });
        await until(() => early.done.length === 2 && late.done.length === 1);
        expect([byNumber(early.done), byNumber(late.done)]).toEqual([[1, 2], [2]]);
      });
    });

    it("are kept through declarations that are repeated and made by several at once", async () => {
      await withApp(async (app) => {
        await app.first.publish([messageOf("a", 1)]);
        const subscriptions = [wentOff, mailed, other];
        const brokers = await Promise.all([app.open(), app.open(), app.open()]);
        await Promise.all(brokers.map((broker) => broker.declare(subscriptions)));
        await Promise.all(brokers.map((broker) => broker.declare(subscriptions)));
        await app.first.publish([messageOf("a", 2)]);
        const { done } = await app.consume(acknowledge);
        await until(() => done.length === 2);
        expect(byNumber(done)).toEqual([1, 2]);
      });
    });

    it("are counted until they are acknowledged, also while a process holds them", async () => {
      await withApp(
        async (app) => {
          const count = async () => {
            const backlog = await app.first.backlog([wentOff, mailed]);
            return backlog.map(({ handler, messages }) => `${handler} ${messages}`).join(", ");
          };
          expect(await count()).toBe("work.note 0, mail.send 0");
          await app.first.publish(Array.from({ length: 30 }, (_, index) => messageOf(`k${index}`, index)));
          await until(async () => (await count()) === "work.note 30, mail.send 30");
          const { delivered } = await app.consume((delivery) => void delivery.begin(), {
            subscriptions: [{ ...wentOff, room: 5 }],
          });
          await until(() => delivered.length === 5);
          await until(async () => (await count()) === "work.note 30, mail.send 30");
          for (const delivery of delivered.slice()) delivery.ack();
          await until(async () => (await count()) === "work.note 25, mail.send 30");
        },
        [wentOff, mailed],
      );
    });
  });
}
