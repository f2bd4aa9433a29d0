/** `rungs dns export`: the zone as files for a server or a provider. */
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { ArgsDef } from "citty";
import type { Zone } from "rungs/dns";
import { cloudflareRequests } from "rungs/dns/cloudflare";
import { gdnsdAdminState, gdnsdFiles, needsCountries } from "rungs/dns/gdnsd";
import { route53Template } from "rungs/dns/route53";
import type { Command, CommandContext, Values } from "../../command.ts";
import { UsageError } from "../../exit-code.ts";
import { databaseOf, dnsFlags, drainedFlag, drainedOf, zoneOf } from "./common.ts";

const targets = ["gdnsd", "route53", "cloudflare"] as const;
type Target = (typeof targets)[number];

/** What to do with the files. */
const next: Readonly<Record<Target, string>> = {
  gdnsd: "Copy them to the folder of gdnsd (-c, /etc/gdnsd), admin_state to its state folder; then: gdnsdctl replace",
  route53: "aws cloudformation deploy --template-file FILE --stack-name NAME --parameter-overrides HostedZoneId=ID",
  cloudflare: "Send the requests in their order; {{name}} is the id in the answer to the request of that name.",
};

/** The command. */
export const exportZone: Command = {
  definition: {
    meta: { name: "export", description: `Write the zone for one of ${targets.join(", ")}` },
    args: {
      target: { type: "positional", required: false, description: targets.join(", ") },
      out: { type: "string", valueHint: "folder", description: "Where to write (default dns/<target>)" },
      listen: {
        type: "string",
        valueHint: "addresses",
        description: "For gdnsd: where it listens, such as 192.0.2.53,2001:db8::53 (default 127.0.0.1)",
      },
      ...drainedFlag,
      ...dnsFlags,
    } satisfies ArgsDef,
  },
  examples: [
    ["rungs dns export gdnsd --listen 192.0.2.53", "configuration and zone of gdnsd, into dns/gdnsd"],
    ["rungs dns export route53 --drained eu", "a template for Route 53 that sends nobody to eu"],
    ["rungs dns export cloudflare --out /tmp/dns", "the requests to Cloudflare's API"],
  ],
  wordsMax: 1,
  async run(values, context) {
    const target = targets.find((name) => name === values.words[0]);
    if (target === undefined)
      throw new UsageError(`For what? One of ${targets.join(", ")}. Try: rungs dns export gdnsd`);
    const zone = await zoneOf(values, context);
    const folder = resolve(context.folder, values.text("out") ?? join("dns", target));
    const files = await filesOf(target, zone, values, context);
    for (const [name, text] of Object.entries(files)) {
      const path = join(folder, name);
      await mkdir(dirname(path), { recursive: true });
      await writeFile(path, text);
    }
    const { output } = context;
    output.json({ target, folder, files: Object.keys(files) });
    for (const name of Object.keys(files)) output.line(join(folder, name));
    output.line(`\n${next[target]}`);
  },
};

async function filesOf(
  target: Target,
  zone: Zone,
  values: Values,
  context: CommandContext,
): Promise<Readonly<Record<string, string>>> {
  const overrides = drainedOf(values, zone);
  if (target === "route53") return { "route53.json": lines(route53Template(zone, overrides)) };
  if (target === "cloudflare") return { "cloudflare.json": lines(cloudflareRequests(zone, overrides)) };
  const listen = (values.text("listen") ?? "127.0.0.1").split(",").map((host) => ({ host, port: 53 }));
  const { config, zone: zoneFile } = gdnsdFiles(zone, {
    listen,
    ...(needsCountries(zone) ? { database: await databaseOf(values, context) } : {}),
    runFolder: "/run/gdnsd",
    stateFolder: "/var/lib/gdnsd",
    serial: Math.floor(Date.now() / 1_000),
  });
  return { config, [`zones/${zone.zone}`]: zoneFile, admin_state: gdnsdAdminState(zone, overrides) };
}

function lines(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
