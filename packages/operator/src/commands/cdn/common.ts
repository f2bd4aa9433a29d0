/** What the commands about the CDN have in common: where it is, and how to talk to it. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "rungs";
import { type Cdn, varnishCdn } from "rungs/cdn";
import { cdnOf } from "rungs/cdn/open";
import type { CommandContext, Values } from "../../command.ts";
import { askStatus } from "../../stack/control/control-client.ts";
import { foldersOf } from "../../stack/stack-plan.ts";
import { readRecord } from "../../stack/stack-record.ts";
import { purgeSecretFile } from "../../stack/variables.ts";
import { topologyOf } from "../../topology-flags.ts";
import { folderOf, stackFlags } from "../stack/common.ts";

/** Flags of each of them. */
export const cdnFlags = stackFlags;

/** The Varnish of a running stack; of several regions those of all. */
export interface StackEdge {
  /** The folder of its settings; of several regions each one's. */
  readonly folders: readonly string[];
  /** Its public address; of several regions each one's. */
  readonly apps: readonly [string, ...string[]];
  readonly purgePorts: readonly number[];
  readonly secret: string;
}

/** The Varnish that `rungs up` has started in the folder that is meant; undefined when there is none. */
export async function stackEdge(values: Values, context: CommandContext): Promise<StackEdge | undefined> {
  const folder = await folderOf(values, context);
  const status = await askStatus(folder, context.signal);
  const { ports = {} } = (await readRecord(folder)) ?? {};
  if (status === undefined) return undefined;
  const names = status.regions.map(({ name }) => name);
  const purgePorts = (names.length === 0 ? ["purge"] : names.map((name) => `${name}-purge`)).flatMap(
    (name) => ports[name] ?? [],
  );
  if (purgePorts.length === 0) return undefined;
  const secret = (await readFile(join(foldersOf(folder).secrets, purgeSecretFile), "utf8")).trim();
  const folders = names.length === 0 ? [folder] : names.map((name) => join(folder, "regions", name));
  const [, ...further] = status.regions.map(({ app }) => app);
  return { folders, apps: [status.app, ...further], purgePorts, secret };
}

/** The CDN to purge: that of the running stack, else the one that the settings name. Raises `CONFIG_INVALID` without any. */
export async function cdnToPurge(values: Values, context: CommandContext): Promise<Cdn> {
  const edge = await stackEdge(values, context);
  if (edge !== undefined) {
    const addresses = edge.purgePorts.map((port) => `http://127.0.0.1:${port}`) as [string, ...string[]];
    return varnishCdn({ addresses, secret: edge.secret });
  }
  const cdn = cdnOf(await topologyOf(values, context), context.environment);
  if (cdn !== undefined) return cdn;
  throw noCdn();
}

/** There is nothing to ask. */
export function noCdn(): ConfigError {
  return new ConfigError(
    "CONFIG_INVALID",
    "There is no CDN: no stack with one runs in this folder, and the settings name none. Start one with: rungs up --rung 3",
  );
}
