/** `rungs regions lose` and `return`: the rehearsal of a region that is gone at once. */
import type { Command } from "../../command.ts";
import { changeRegion, regionFlags } from "./common.ts";

/** The command. */
export const lose: Command = {
  definition: {
    meta: { name: "lose", description: "Kill all processes of a region and keep them down, to see what happens" },
    args: regionFlags,
  },
  examples: [["rungs regions lose eu", "the others find out by themselves, and take over"]],
  wordsMax: 1,
  run: async (values, context) => void (await changeRegion<null>(values, context, { action: "lose" })),
};

/** The way back. */
export const bringBack: Command = {
  definition: {
    meta: { name: "return", description: "Start a lost region again; its former leaders follow" },
    args: regionFlags,
  },
  examples: [["rungs regions return eu", "what nobody else has got is rewound, and the rest is caught up"]],
  wordsMax: 1,
  run: async (values, context) => void (await changeRegion<null>(values, context, { action: "return" })),
};
