/** `rungs regions evacuate`: leaves a region as planned, without a lost write. */
import type { Command } from "../../command.ts";
import { duration } from "../../output.ts";
import type { Evacuation } from "../../stack/regions/region-evacuation.ts";
import { changeRegion, regionFlags } from "./common.ts";

/** The command. */
export const evacuateRegion: Command = {
  definition: {
    meta: {
      name: "evacuate",
      description: "Move users, leaders and sessions out of a region; writes wait a moment, and nothing is lost",
    },
    args: {
      ...regionFlags,
      to: {
        type: "string",
        valueHint: "region",
        description: "Where to (default: the first that is neither drained nor lost)",
      },
    },
  },
  examples: [
    ["rungs regions evacuate eu", "to the next region"],
    ["rungs regions evacuate eu --to us", "to us; broken off, the same command goes on"],
  ],
  wordsMax: 1,
  async run(values, context) {
    const to = values.text("to");
    const parameters = to === undefined ? {} : { to };
    const done = await changeRegion<Evacuation>(values, context, { action: "evacuate", parameters });
    const { output } = context;
    const pauses = done.shards.map(({ shard, pauseMs }) => `shard ${shard} ${pauseMs} ms`);
    if (done.sessions !== null) pauses.push(`sessions ${done.sessions.pauseMs} ms`);
    output.line(
      `\n${done.from} was left for ${done.to} within ${duration(done.tookMs)}. Writes waited: ${pauses.join(", ") || "none"}.`,
    );
    output.line(
      `Back: rungs regions undrain ${done.from}. Its users come back; leaders stay until ${done.to} is evacuated.`,
    );
  },
};
