/** The broker contract: what a consumer may have in its hands, and how it gets rid of it. */
import { describe, expect, it } from "vitest";
import { acknowledge, type BrokerHarness, messageOf, numberOf, until, wentOff } from "./harness.ts";

export function settlingContract({ withApp }: BrokerHarness): void {
  describe("a consumer", () => {
    const some = (count: number, key: (index: number) => string | null) =>
      Array.from({ length: count }, (_, index) => messageOf(key(index), index));

    it("never has more than its room in its hands, and gets the next when it settles one", async () => {
      await withApp(async (app) => {
        let held = 0;
        let heldMax = 0;
        const { delivered, done } = await app.consume(
          (delivery) => {
            held++;
            heldMax = Math.max(heldMax, held);
            setTimeout(() => {
              held--;
              done.push(delivery.message);
              delivery.ack();
            }, 2);
          },
          { subscriptions: [{ ...wentOff, room: 3 }] },
        );
        await app.first.publish(some(60, (index) => `k${index}`));
        await until(() => done.length === 60);
        expect(heldMax).toBe(3);
        expect(delivered).toHaveLength(60);
      });
    });

    it("gets what it handed back again, before what follows of its key, and that in order", async () => {
      await withApp(async (app) => {
        let handBacks = 0;
        const seen: string[] = [];
        const { delivered } = await app.consume((delivery) => {
          const { message } = delivery;
          if (message.key === "a" && numberOf(message) === 1 && handBacks < 2) {
            // All of the key are in its hands by then.
            setTimeout(() => {
              if (!delivery.begin()) return;
              handBacks++;
              delivery.handBack();
            }, 50);
            return;
          }
          setTimeout(
            () => {
              if (!delivery.begin()) return;
              seen.push(`${message.key} ${numberOf(message)}${delivery.isRepeated ? " again" : ""}`);
              delivery.ack();
            },
            numberOf(message) === 0 ? 0 : 100,
          );
        });
        await app.first.publish([...some(5, () => "a"), ...some(3, () => "b")]);
        await until(() => seen.length === 8);
        expect(seen.filter((line) => line.startsWith("a"))).toEqual(["a 0", "a 1 again", "a 2", "a 3", "a 4"]);
        expect(seen.filter((line) => line.startsWith("b"))).toEqual(["b 0", "b 1", "b 2"]);
        const first = delivered.find(({ message }) => message.key === "a" && numberOf(message) === 2);
        expect(first?.isLost()).toBe(true);
        expect(first?.begin()).toBe(false);
      });
    });

    it("gets nothing of a handler that it paused, keeps what it had begun, and loses the rest until it resumes", async () => {
      const other = { event: wentOff.event, handler: "work.other" };
      await withApp(
        async (app) => {
          const { consumer, delivered } = await app.consume(
            (delivery) => {
              if (delivery.handler === other.handler) delivery.ack();
            },
            { subscriptions: [wentOff, other].map((each) => ({ ...each, room: 2 })) },
          );
          const ofNote = () => delivered.filter(({ handler }) => handler === wentOff.handler);
          await app.first.publish(some(4, () => "a"));
          await until(() => ofNote().length === 2);
          const [begun, waiting] = ofNote();
          expect(begun?.begin()).toBe(true);
          consumer.pause(wentOff.handler);
          expect([begun?.isLost(), waiting?.isLost(), waiting?.begin()]).toEqual([false, true, false]);
          begun?.ack();
          await app.first.publish(some(2, () => "b"));
          await until(() => delivered.length - ofNote().length === 6);
          expect(ofNote()).toHaveLength(2);
          consumer.resume(wentOff.handler);
          for (let taken = 2; taken < 7; taken++) {
            await until(() => ofNote().length > taken);
            const next = ofNote()[taken];
            expect(next?.begin()).toBe(true);
            next?.ack();
          }
          const numbers = ofNote()
            .slice(2)
            .filter(({ message }) => message.key === "a");
          expect(numbers.map(({ message }) => numberOf(message))).toEqual([1, 2, 3]);
        },
        [wentOff, other],
      );
    });

    it("that is closed has lost what it did not settle; that goes elsewhere, repeated", async () => {
      await withApp(async (app) => {
        const first = await app.consume(() => {}, { subscriptions: [{ ...wentOff, room: 3 }] });
        await app.first.publish(some(6, () => "a"));
        await until(() => first.delivered.length === 3);
        const [settled, begun, waiting] = first.delivered;
        expect([settled?.begin(), begun?.begin()]).toEqual([true, true]);
        settled?.ack();
        await first.consumer.close();
        expect([begun?.isLost(), waiting?.isLost(), waiting?.begin(), begun?.begin()]).toEqual([
          true,
          true,
          false,
          false,
        ]);
        begun?.ack();
        waiting?.handBack();
        const second = await app.consume(acknowledge);
        await until(() => second.done.length === 5);
        expect(second.done.map(numberOf)).toEqual([1, 2, 3, 4, 5]);
        expect(second.delivered[0]?.isRepeated).toBe(true);
      });
    });
  });
}
