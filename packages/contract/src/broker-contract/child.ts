/** A process of the broker contract, to be killed: reads how to make its broker, begins what it gets, settles nothing, tells the ids. */
import { text } from "node:stream/consumers";
import { type BrokerDriver, openBroker, wentOff } from "./harness.ts";

const broker = await openBroker(JSON.parse(await text(process.stdin)) as BrokerDriver);
await broker.consume({
  subscriptions: [{ ...wentOff, room: 20 }],
  deliver: (delivery) => {
    if (delivery.begin()) process.stdout.write(`${delivery.message.id}\n`);
  },
});
process.stdout.write("ready\n");
