/** `rungs regions drain` and `undrain`: whether DNS sends users to a region. */
import type { Command } from "../../command.ts";
import { changeRegion, regionFlags } from "./common.ts";

/** The command. */
export const drain: Command = {
  definition: {
    meta: { name: "drain", description: "DNS sends nobody to a region any more; what runs there runs on" },
    args: regionFlags,
  },
  examples: [["rungs regions drain eu", "users of eu go to the next region; it lasts over restarts"]],
  wordsMax: 1,
  run: async (values, context) => void (await changeRegion<null>(values, context, { action: "drain" })),
};

/** The way back. */
export const undrain: Command = {
  definition: {
    meta: { name: "undrain", description: "DNS sends users to a drained region again" },
    args: regionFlags,
  },
  examples: [["rungs regions undrain eu", "users of eu come back; leaders stay where they are"]],
  wordsMax: 1,
  run: async (values, context) => void (await changeRegion<null>(values, context, { action: "undrain" })),
};
