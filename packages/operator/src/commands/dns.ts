/** `rungs dns`: the zone that sends users to their region. The commands below it are in `dns/`. */
import type { Command } from "../command.ts";

/** The group. */
export const dns: Command = {
  definition: {
    meta: { name: "dns", description: "Check the DNS zone of the regions, write it for a server or provider" },
  },
  examples: [
    ["rungs dns check", "is the zone right, and who is sent where"],
    ["rungs dns export route53", "the zone for Amazon Route 53, as a file"],
    ["rungs dns update-data", "the newest database of countries, for gdnsd"],
  ],
  commands: {
    check: async () => (await import("./dns/check.ts")).check,
    export: async () => (await import("./dns/export.ts")).exportZone,
    "update-data": async () => (await import("./dns/update-data.ts")).updateData,
  },
};
