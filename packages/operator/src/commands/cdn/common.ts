/** What the commands about the CDN have in common: where it is, and how to talk to it. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "rungs";
import { type Cdn, varnishCdn } from "rungs/cdn";
import { cdnOf } from "rungs/cdn/open";
import type { CommandContext, Values } from "../../command.ts";
import { askStatus } from "../../stack/control-client.ts";
import { foldersOf, purgeSecretFile } from "../../stack/stack-plan.ts";
import { readRecord } from "../../stack/stack-record.ts";
import { topologyOf } from "../../topology-flags.ts";
import { folderOf, stackFlags } from "../stack/common.ts";

/** Flags of each of them. */
export const cdnFlags = stackFlags;

/** The Varnish of a running stack. */
export interface StackEdge {
  /** The stack's folder. */
  readonly folder: string;
  /** Its public address. */
  readonly app: string;
  readonly purgePort: number;
  readonly secret: string;
}

/** The Varnish that `rungs up` has started in the folder that is meant; undefined when there is none. */
export async function stackEdge(values: Values, context: CommandContext): Promise<StackEdge | undefined> {
  const folder = await folderOf(values, context);
  const status = await askStatus(folder, context.signal);
  const port = (await readRecord(folder))?.ports["purge"];
  if (status === undefined || port === undefined) return undefined;
  const secret = (await readFile(join(foldersOf(folder).secrets, purgeSecretFile), "utf8")).trim();
  return { folder, app: status.app, purgePort: port, secret };
}

/** The CDN to purge: that of the running stack, else the one that the settings name. Raises `CONFIG_INVALID` without any. */
export async function cdnToPurge(values: Values, context: CommandContext): Promise<Cdn> {
  const edge = await stackEdge(values, context);
  if (edge !== undefined) {
    return varnishCdn({ addresses: [`http://127.0.0.1:${edge.purgePort}`], secret: edge.secret });
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
