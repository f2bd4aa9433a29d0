/** What Sentinels say of the master. */
import { askRedis, fieldsOf } from "./redis-ask.ts";
import { masterName } from "./redis-set-config.ts";

/** One Sentinel. */
export interface SentinelPlace {
  readonly name: string;
  /** On 127.0.0.1. */
  readonly port: number;
  readonly password: string;
}

/** The word of one of them. */
export interface MasterWord {
  readonly port: number;
  /** It does not answer them, or another one is being chosen. */
  readonly isDoubted: boolean;
  readonly epoch: number;
}

const answerWithinMs = 1_000;

/** The newest word of those that answer; undefined when none does. */
export async function wordOf(
  sentinels: readonly SentinelPlace[],
  signal: AbortSignal,
): Promise<MasterWord | undefined> {
  const words = await Promise.all(
    sentinels.map(async (sentinel): Promise<MasterWord[]> => {
      try {
        const within = AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]);
        const [master, address] = await askRedis(
          sentinel,
          [
            ["SENTINEL", "MASTER", masterName],
            // Told to clients: while copies are being turned to a new master it is that one already.
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName],
          ],
          within,
        );
        const { flags = "", "config-epoch": epoch } = fieldsOf(master) as Record<string, string>;
        const port = Array.isArray(address) ? Number(address[1]) : 0;
        return [{ port, epoch: Number(epoch), isDoubted: /down|failover|disconnected/.test(flags) }];
      } catch {
        return [];
      }
    }),
  );
  signal.throwIfAborted();
  const all = words.flat().sort((one, other) => other.epoch - one.epoch);
  const [newest] = all;
  if (newest === undefined) return undefined;
  return { ...newest, isDoubted: all.some(({ epoch, isDoubted }) => epoch === newest.epoch && isDoubted) };
}
