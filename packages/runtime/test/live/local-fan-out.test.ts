import { fanOutContract } from "@rungs/contract/fan-out-contract";
import { localFanOut } from "../../src/live/drivers/local-fan-out.ts";

fanOutContract({
  name: "in one process",
  async join() {
    const fanOut = localFanOut();
    return [fanOut, fanOut];
  },
});
