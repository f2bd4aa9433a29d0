/** What every fan-out must do. Run it against each driver; `join` gives two that carry for each other, or one twice. */
import type { FanOut, LiveMessage } from "rungs/live";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

/** `join` opens the fan-outs of two processes. A driver for one process only gives the same object twice. */
export function fanOutContract(options: { readonly name: string; join(): Promise<readonly [FanOut, FanOut]> }): void {
  describe(`the fan-out contract: ${options.name}`, () => {
    let here: FanOut;
    let there: FanOut;

    beforeEach(async () => {
      [here, there] = await options.join();
    });
    afterEach(async () => {
      await here.close();
      await there.close();
    });

    const message = (data: unknown, id?: string): LiveMessage => ({
      event: "told",
      data,
      ...(id === undefined ? {} : { id }),
    });

    /** Collects what a topic brings. */
    async function hear(fanOut: FanOut, topic: string) {
      const heard: LiveMessage[] = [];
      const leave = await fanOut.subscribe(topic, (each) => heard.push(each));
      return { heard, data: () => heard.map(({ data }) => data), leave };
    }

    it("brings a message to every listener of its topic, in every process, and to no other topic's", async () => {
      const ears = [await hear(here, "a"), await hear(here, "a"), await hear(there, "a")];
      const other = await hear(there, "b");
      await here.publish("a", message({ deep: [1, "two", null] }, "7"));
      for (const { heard } of ears) {
        await expect.poll(() => heard).toEqual([{ event: "told", data: { deep: [1, "two", null] }, id: "7" }]);
      }
      await here.publish("b", message("end"));
      await expect.poll(other.data).toEqual(["end"]);
    });

    it("keeps the order of one sender within a topic", async () => {
      const ear = await hear(there, "a");
      const numbers = Array.from({ length: 500 }, (_, index) => index);
      await Promise.all(numbers.map((number) => here.publish("a", message(number))));
      await expect.poll(ear.data).toEqual(numbers);
    });

    it("brings what is published after a subscription resolved, and nothing after it was left", async () => {
      await here.publish("a", message("before"));
      const ear = await hear(there, "a");
      const witness = await hear(there, "a");
      await here.publish("a", message("during"));
      await expect.poll(ear.data).toEqual(["during"]);
      await ear.leave();
      await here.publish("a", message("after"));
      await expect.poll(witness.data).toEqual(["during", "after"]);
      expect(ear.data()).toEqual(["during"]);
    });

    it("lets one of several listeners go, and come again, without touching the others", async () => {
      for (let round = 0; round < 20; round++) {
        const [stays, goes] = await Promise.all([hear(here, "a"), hear(here, "a")]);
        const left = goes.leave();
        const comes = await hear(here, "a");
        await left;
        await there.publish("a", message(round));
        await expect.poll(stays.data).toEqual([round]);
        await expect.poll(comes.data).toEqual([round]);
        expect(goes.data()).toEqual([]);
        await Promise.all([stays.leave(), comes.leave()]);
      }
    });

    it("brings data as JSON does, unmoved by what the sender does with it later", async () => {
      const ear = await hear(there, "a");
      const data = { at: new Date(0), gone: undefined, list: [1] };
      const published = here.publish("a", message(data));
      data.list.push(2);
      await published;
      await here.publish("a", message(undefined));
      await expect.poll(ear.data).toEqual([{ at: "1970-01-01T00:00:00.000Z", list: [1] }, null]);
      expect(Object.keys(ear.heard[0]?.data as object)).toEqual(["at", "list"]);
      expect(ear.heard.map((each) => "id" in each)).toEqual([false, false]);
    });

    it("tells topics apart whatever they hold, and carries any text", async () => {
      const topics = ["", " ", "a", "A", "a:b", "a*", "a?", "[a]", "__proto__", "ä", "line\nbreak"];
      const ears = await Promise.all(topics.map((topic) => hear(there, topic)));
      const text = 'quote " line \n return \r nul \u0000 \u2028 😀';
      for (const topic of topics) await here.publish(topic, message([topic, text]));
      for (const [index, topic] of topics.entries()) {
        await expect.poll(() => ears[index]?.data()).toEqual([[topic, text]]);
      }
    });

    it("goes on bringing messages to the others when a listener throws", async () => {
      await there.subscribe("a", () => {
        throw new Error("a listener's own trouble");
      });
      const ear = await hear(there, "a");
      await here.publish("a", message(1));
      await here.publish("a", message(2));
      await expect.poll(ear.data).toEqual([1, 2]);
    });

    it("publishes to nobody without complaint", async () => {
      await expect(here.publish("nobody", message(1))).resolves.toBeUndefined();
    });
  });
}
