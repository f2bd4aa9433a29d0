/**
 * Where the master is: by the word of the Sentinels, or always at one address.
 *
 * The method is that of Redis's "Guidelines for Redis clients with support for Redis Sentinel": ask the Sentinels in turn, the
 * one that answered last first; take the first address given; make sure by `ROLE` that it is a master; ask anew after each loss.
 */
import type { Logger } from "../kernel/log.ts";
import type { ServerNode } from "../kernel/server-address.ts";
import { type RedisSocketClient, type RedisTls, redisSocketClient } from "./load-redis.ts";
import type { RedisAddress } from "./redis-address.ts";
import { failureOf, LinkLostError, messageOf } from "./redis-errors.ts";

/** Finds the master that an address names. Raises an `Error` that says why each Sentinel did not help. */
export type MasterFinder = () => Promise<ServerNode>;

/** A finder over Sentinels; `connectMs` bounds each of them. */
export function sentinelFinder(
  address: RedisAddress,
  options: { readonly tls: RedisTls | undefined; readonly connectMs: number },
): MasterFinder {
  const sentinels = [...address.nodes];
  return async () => {
    const problems: string[] = [];
    for (const sentinel of [...sentinels]) {
      try {
        const master = await askSentinel(sentinel, address, options);
        sentinels.splice(sentinels.indexOf(sentinel), 1);
        sentinels.unshift(sentinel);
        return master;
      } catch (error) {
        problems.push(`${sentinel.host}:${sentinel.port}: ${messageOf(error)}`);
      }
    }
    throw new LinkLostError(`no Sentinel named the master (${problems.join("; ")})`);
  };
}

/** Raises unless the server says that it is a master. A user who may not ask is taken at the Sentinels' word. */
export async function checkIsMaster(client: RedisSocketClient, log: Logger): Promise<void> {
  try {
    const reply = await client.sendCommand(["ROLE"]);
    const role = Array.isArray(reply) ? String(reply[0]) : "";
    if (role !== "master")
      throw new LinkLostError(`the server found is a ${role || "server of unknown role"}, not the master`);
  } catch (error) {
    if (failureOf(error) !== "refused") throw error;
    log.warn({ error }, "the Redis user may not ask for ROLE; whether a server is the master is not checked");
  }
}

async function askSentinel(
  node: ServerNode,
  { master, sentinelLogin }: RedisAddress,
  { tls, connectMs }: { readonly tls: RedisTls | undefined; readonly connectMs: number },
): Promise<ServerNode> {
  const client = await redisSocketClient({ node, login: sentinelLogin, tls, database: 0, connectMs });
  client.on("error", () => {});
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new LinkLostError(`no answer within ${connectMs} ms`)), connectMs);
  });
  try {
    const asked = client.connect().then(() => client.sendCommand(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master]));
    asked.catch(() => {});
    const reply = await Promise.race([asked, late]);
    const [host, port] = Array.isArray(reply) ? reply.map(String) : [];
    if (host === undefined || port === undefined) throw new LinkLostError(`it knows no master "${master}"`);
    return { host, port: Number(port) };
  } finally {
    clearTimeout(timer);
    client.destroy();
  }
}
