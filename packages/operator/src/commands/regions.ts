/** `rungs regions`: the regions of the running stack. The commands below it are in `regions/`. */
import type { Command } from "../command.ts";
import { listRegions } from "./regions/list.ts";

/** The group; alone it lists. */
export const regions: Command = {
  ...listRegions,
  definition: {
    ...listRegions.definition,
    meta: {
      name: "regions",
      description: "Show the regions of the running stack; drain, evacuate, lose and return one",
    },
  },
  examples: [
    ["rungs regions", "who leads where, and how the regions are"],
    ["rungs regions drain eu", "DNS sends nobody to eu any more"],
    ["rungs regions undrain eu", "and again its users"],
    ["rungs regions evacuate eu --to us", "planned: users, leaders and sessions go to us, and nothing is lost"],
    ["rungs regions lose eu", "unplanned: everything in eu is killed and kept down"],
    ["rungs regions return eu", "it comes back, and follows"],
  ],
  commands: {
    list: async () => listRegions,
    drain: async () => (await import("./regions/drain.ts")).drain,
    undrain: async () => (await import("./regions/drain.ts")).undrain,
    evacuate: async () => (await import("./regions/evacuate.ts")).evacuateRegion,
    lose: async () => (await import("./regions/lose.ts")).lose,
    return: async () => (await import("./regions/lose.ts")).bringBack,
  },
};
