/** Shows a balancer's configuration to the HAProxy of this machine. */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Balancer } from "../../src/stack/front/balancer.ts";
import { haproxyConfig } from "../../src/stack/front/haproxy-config.ts";
import { unavailableMap } from "../../src/stack/front/haproxy-frontends.ts";
import { routingMap } from "../../src/stack/front/haproxy-services.ts";
import type { RoutingRule } from "../../src/stack/front/routing-rules.ts";
import { findProgram } from "../../src/stack/process/find-program.ts";

/** Writes it with its files into `folder`, and gives what HAProxy warns of: nothing is best. Raises when HAProxy does not take it. */
export async function haproxyTakes(
  balancer: Balancer,
  { folder, rules = [] }: { readonly folder: string; readonly rules?: readonly RoutingRule[] },
): Promise<string> {
  const file = join(folder, "haproxy.cfg");
  const [answers, map] = [join(folder, "answers.map"), join(folder, "groups.map")];
  await writeFile(answers, unavailableMap());
  await writeFile(map, routingMap(rules).join("\n"));
  const places = { socket: join(folder, "s.sock"), answers, rules: map, inUse: new Set(["web-1"]), threads: 2 };
  await writeFile(file, haproxyConfig(balancer, places));
  const { stdout, stderr } = await promisify(execFile)(findProgram("haproxy", process.env) as string, [
    "-c",
    "-f",
    file,
  ]);
  if (!`${stdout}${stderr}`.includes("Configuration file is valid")) throw new Error(`${stdout}${stderr}`);
  return stderr
    .split("\n")
    .filter((line) => /WARNING|ALERT/.test(line))
    .join("\n");
}
