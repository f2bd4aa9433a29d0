/**
 * Session driver on Redis 6.2 or newer: one server, a master behind Sentinels, or a Cluster.
 *
 * Keys, under a prefix: `session:<hash>` (see `redis-session-scripts.ts`) and `user:<id>`, the list of a user's sessions. They
 * lie in different slots of a Cluster, so a session and its list are changed one after the other, always in the order that a
 * crash between the two leaves safe: a session is listed before it is made, and taken off after it is gone. A list may thus
 * name sessions that are no more, never miss one that lives.
 *
 * Rotation is one step, but in a Cluster, where the two sessions lie in different slots: there the old one is taken and then
 * the new one made. A crash between loses the old one: its user signs in again.
 *
 * Expiry is Redis's: at the absolute end or at the idle end, whichever is first, plus an hour, so that clocks that differ end no
 * session early; `sessions.ts` judges to the millisecond.
 *
 * A master that copies asynchronously loses its last writes when it fails. With `revocations`, revoked sessions do not come
 * back by that; see `session-revocations.ts` and the decision note 0011.
 */
import { UnavailableError, UnsupportedError } from "../../kernel/errors.ts";
import type { Redis, SendOptions } from "../../redis/redis.ts";
import type { RedisScript } from "../../redis/redis-script.ts";
import type { AdoptiveSessionStore } from "../adopting-session-store.ts";
import { latestSeen, type Seen } from "../seen.ts";
import type { SessionRevocations } from "../session-revocations.ts";
import { type JsonValue, type SessionData, type SessionRecord, sessionDataBytesMax } from "../session-store.ts";
import {
  adoptScript,
  createScript,
  enlistScript,
  noteSeenScript,
  noteWriteScript,
  rotateScript,
  takeScript,
  touchScript,
  updateScript,
} from "./redis-session-scripts.ts";

/** Settings of {@link redisSessionStore}. */
export interface RedisSessionStoreOptions {
  readonly redis: Redis;
  /** Before every key; default "rungs:". */
  readonly prefix?: string;
  /** A session unused for this long may vanish; the same as `createSessions` is given, default 30 days. */
  readonly idleMs?: number;
  /** Where revocations are remembered. Without it a fail-over may bring revoked sessions back; default none. */
  readonly revocations?: SessionRevocations;
}

const dayMs = 24 * 60 * 60 * 1_000;
const slackMs = 60 * 60 * 1_000;
/**
 * A process that went on speaking to the old master may have noted a revocation after others had moved to the new one. All
 * leave a dead or demoted master well within this (redis-link.ts).
 */
const stragglersMs = 15_000;
const batchMax = 500;
const batchesMax = 10_000;
const repeatable: SendOptions = { isRepeatable: true };

/** Opens the store; resolves once what was revoked lately is revoked in this Redis too. */
export async function redisSessionStore(options: RedisSessionStoreOptions): Promise<AdoptiveSessionStore> {
  const store = new RedisSessionStore(options);
  const { redis, revocations } = options;
  if (revocations === undefined) return store;
  let later: NodeJS.Timeout | undefined;
  await redis.beforeUse(async () => {
    await store.revokeAgain(revocations);
    clearTimeout(later);
    // When it fails the connection is down, and the next one begins as this one did.
    later = setTimeout(() => store.revokeAgain(revocations).catch(() => {}), stragglersMs).unref();
  });
  return store;
}

class RedisSessionStore implements AdoptiveSessionStore {
  readonly capabilities = { expiresByItself: true };
  private readonly redis: Redis;
  private readonly prefix: string;
  private readonly idleMs: number;
  private readonly revocations: SessionRevocations | undefined;

  constructor({ redis, prefix = "rungs:", idleMs = 30 * dayMs, revocations }: RedisSessionStoreOptions) {
    this.redis = redis;
    this.prefix = prefix;
    this.idleMs = idleMs;
    this.revocations = revocations;
  }

  async create(record: SessionRecord): Promise<void> {
    await this.enlist(record);
    const values = [...this.head(record), ...pairs(record.data)];
    const made = await this.run(createScript, [this.sessionKey(record.tokenHash)], values, repeatable);
    if (made === 0) throw tooLarge();
  }

  async adopt(record: SessionRecord): Promise<boolean> {
    await this.enlist(record);
    const values = [...this.head(record), ...pairs(record.data)];
    return (await this.run(adoptScript, [this.sessionKey(record.tokenHash)], values)) === 1;
  }

  async read(tokenHash: Buffer): Promise<SessionRecord | undefined> {
    const key = this.sessionKey(tokenHash);
    const fields = (await this.command(key, ["HGETALL", key])) as Readonly<Record<string, string>>;
    if (fields["e"] === undefined) return undefined;
    const data = Object.entries(fields).filter(([name]) => name.startsWith("d"));
    return {
      tokenHash,
      userId: fields["u"] === "" ? null : (fields["u"] ?? null),
      createdAt: new Date(Number(fields["c"])),
      lastSeenAt: new Date(Number(fields["s"])),
      expiresAt: new Date(Number(fields["e"])),
      data: dataOf(data.flat()),
      wrote: Number(fields["w"] ?? 0),
      seen: seenOf(Object.entries(fields)),
      revision: Number(fields["r"] ?? 0),
    };
  }

  async touch(tokenHash: Buffer, seenAt: Date, unlessSeenSince: Date): Promise<void> {
    const times = [seenAt, unlessSeenSince].map((time) => String(time.getTime()));
    const expiry = [Number.isFinite(this.idleMs) ? String(this.idleMs) : "", String(slackMs)];
    await this.run(touchScript, [this.sessionKey(tokenHash)], [...times, ...expiry], repeatable);
  }

  async update(tokenHash: Buffer, patch: SessionData): Promise<Pick<SessionRecord, "data" | "revision"> | undefined> {
    const gone = Object.keys(patch).filter((field) => patch[field] === null);
    const set = Object.entries(patch).filter(([, value]) => value !== null);
    const names = [String(gone.length), ...gone.map(fieldName)];
    const values = pairs(Object.fromEntries(set));
    const key = this.sessionKey(tokenHash);
    const reply = await this.run(updateScript, [key], [String(sessionDataBytesMax), ...names, ...values], repeatable);
    if (reply === 0) throw tooLarge();
    if (reply === null) return undefined;
    const [revision, data] = reply as [string, string[]];
    return { data: dataOf(data), revision: Number(revision) };
  }

  async noteWrite(tokenHash: Buffer, wrote: number): Promise<number | undefined> {
    return revisionOf(await this.run(noteWriteScript, [this.sessionKey(tokenHash)], [String(wrote)], repeatable));
  }

  async noteSeen(tokenHash: Buffer, seen: Seen): Promise<number | undefined> {
    const fields = Object.entries(seen).flatMap(([shard, text]) => [`p${shard}`, text]);
    if (fields.length === 0) return undefined;
    return revisionOf(await this.run(noteSeenScript, [this.sessionKey(tokenHash)], fields, repeatable));
  }

  async rotate(
    tokenHash: Buffer,
    record: SessionRecord,
    { keepsData }: { readonly keepsData: boolean },
  ): Promise<SessionData> {
    await this.enlist(record);
    const [oldKey, key] = [this.sessionKey(tokenHash), this.sessionKey(record.tokenHash)];
    if ((await this.userOf(oldKey)) !== null) await this.note([tokenHash]);
    const { user, data } = await (this.redis.isCluster ? this.takeAndMake : this.rotateInOneStep).call(
      this,
      [oldKey, key],
      record,
      keepsData,
    );
    if (user !== null && user !== "") await this.unlist(user, [tokenHash]);
    return data;
  }

  async revoke(tokenHash: Buffer): Promise<boolean> {
    const key = this.sessionKey(tokenHash);
    const user = await this.userOf(key);
    if (user === null) return false;
    const noted = await this.tryNote([tokenHash]);
    const count = Number(await this.command(key, ["DEL", key]));
    if (user !== "") await this.unlist(user, [tokenHash]);
    noted();
    return count > 0;
  }

  async revokeAllOf(userId: string, except?: Buffer): Promise<number> {
    const key = this.userKey(userId);
    let count = 0;
    let kept = 0;
    for (let batch = 0; batch < batchesMax; batch++) {
      const listed = (await this.command(key, ["ZRANGE", key, String(kept), String(kept + batchMax - 1)])) as string[];
      const hashes = listed.map((hash) => Buffer.from(hash, "hex")).filter((hash) => except?.equals(hash) !== true);
      const noted = await this.tryNote(hashes);
      const deleted = await this.delete(hashes);
      await this.unlist(userId, deleted);
      noted();
      count += deleted.length;
      // Those not there may be about to be made: they stay on the list until their end.
      kept += listed.length - deleted.length;
      if (listed.length < batchMax) break;
    }
    return count;
  }

  async sweep(): Promise<number> {
    return 0;
  }

  /** For a server that took over: what it did not hear of is done once more. */
  async revokeAgain(revocations: SessionRevocations): Promise<void> {
    for await (const hashes of revocations.noted(batchMax)) await this.delete(hashes, { isAhead: true });
  }

  private async rotateInOneStep(keys: [string, string], record: SessionRecord, keepsData: boolean) {
    const carries = keepsData ? "1" : "0";
    const reply = await this.run(rotateScript, keys, [...this.head(record), carries, ...pairs(record.data)]);
    if (reply === 0) throw tooLarge();
    const [user, data] = reply as [string | null, string[]];
    return { user, data: dataOf(data) };
  }

  private async takeAndMake([oldKey, key]: [string, string], record: SessionRecord, keepsData: boolean) {
    const taken = (await this.run(takeScript, [oldKey], [])) as [string, string[], string[]] | null;
    const carried = keepsData && taken !== null ? dataOf(taken[1]) : {};
    const data = { ...carried, ...record.data };
    const seen = taken === null ? record.seen : latestSeen(record.seen, seenOf(entriesOf(taken[2])));
    if ((await this.run(createScript, [key], [...this.head({ ...record, seen }), ...pairs(data)])) === 0)
      throw tooLarge();
    return { user: taken?.[0] ?? null, data };
  }

  /** The sessions that were there. */
  private async delete(tokenHashes: readonly Buffer[], options: SendOptions = {}): Promise<Buffer[]> {
    const gone = await Promise.all(
      tokenHashes.map(async (tokenHash) => {
        const key = this.sessionKey(tokenHash);
        return Number(await this.command(key, ["DEL", key], options)) > 0 ? [tokenHash] : [];
      }),
    );
    return gone.flat();
  }

  private async enlist({ tokenHash, userId, expiresAt }: SessionRecord): Promise<void> {
    if (userId === null) return;
    const args = [tokenHash.toString("hex"), String(expiresAt.getTime())];
    await this.run(enlistScript, [this.userKey(userId)], args, repeatable);
  }

  private async unlist(userId: string, tokenHashes: readonly Buffer[]): Promise<void> {
    if (tokenHashes.length === 0) return;
    const key = this.userKey(userId);
    await this.command(key, ["ZREM", key, ...tokenHashes.map((hash) => hash.toString("hex"))]);
  }

  private async userOf(sessionKey: string): Promise<string | null> {
    return (await this.command(sessionKey, ["HGET", sessionKey, "u"])) as string | null;
  }

  private async note(tokenHashes: readonly Buffer[]): Promise<void> {
    await this.revocations?.note(tokenHashes);
  }

  /** Notes, or gives what raises the failure later: a session that should end is ended now all the same. */
  private async tryNote(tokenHashes: readonly Buffer[]): Promise<() => void> {
    try {
      await this.note(tokenHashes);
      return () => {};
    } catch (error) {
      return () => {
        throw error;
      };
    }
  }

  private head({ userId, createdAt, lastSeenAt, expiresAt, wrote, seen, revision }: SessionRecord): string[] {
    const times = [createdAt, lastSeenAt, expiresAt].map((time) => time.getTime());
    const ends = Math.min(expiresAt.getTime(), lastSeenAt.getTime() + this.idleMs) + slackMs;
    return [
      userId ?? "",
      ...times.map(String),
      String(ends),
      String(sessionDataBytesMax),
      String(wrote),
      JSON.stringify(seen),
      String(revision),
    ];
  }

  private sessionKey(tokenHash: Buffer): string {
    return `${this.prefix}session:${tokenHash.toString("hex")}`;
  }

  private userKey(userId: string): string {
    return `${this.prefix}user:${userId}`;
  }

  /** Only commands that may be carried out twice come this way. */
  private async command(key: string, args: readonly string[], options: SendOptions = {}): Promise<unknown> {
    return this.asked(() => this.redis.command(key, args, { ...repeatable, ...options }));
  }

  private async run(
    script: RedisScript,
    keys: readonly [string, ...string[]],
    args: readonly string[],
    options: SendOptions = {},
  ): Promise<unknown> {
    return this.asked(() => this.redis.run(script, keys, args, options));
  }

  private async asked(work: () => Promise<unknown>): Promise<unknown> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof UnavailableError) || error.code !== "REDIS_UNREACHABLE") throw error;
      const message = `The session store cannot be used: ${error.message} Nobody was signed out.`;
      throw new UnavailableError("SESSION_STORE_UNREACHABLE", message, { canRetry: error.canRetry, cause: error });
    }
  }
}

/** Names and values of data as the scripts take them. A null stays a value here: only a patch removes by it. */
function pairs(data: SessionData): string[] {
  return Object.entries(data).flatMap(([field, value]) => [fieldName(field), JSON.stringify(value)]);
}

function revisionOf(reply: unknown): number | undefined {
  return reply === null ? undefined : Number(reply);
}

function fieldName(field: string): string {
  return `d${JSON.stringify(field)}`;
}

function dataOf(flat: readonly string[]): SessionData {
  const entries = entriesOf(flat).map(([name, value]) => [
    JSON.parse(name.slice(1)) as string,
    JSON.parse(value) as JsonValue,
  ]);
  return Object.fromEntries(entries) as SessionData;
}

/** Of the fields of a session. */
function seenOf(fields: readonly (readonly [string, string])[]): Seen {
  const seen = fields.filter(([name]) => name.startsWith("p")).map(([name, text]) => [name.slice(1), text]);
  return Object.fromEntries(seen) as Seen;
}

/** Names and values in turn, as pairs. */
function entriesOf(flat: readonly string[]): [string, string][] {
  const entries: [string, string][] = [];
  for (let index = 0; index < flat.length; index += 2) {
    entries.push([flat[index] as string, flat[index + 1] as string]);
  }
  return entries;
}

function tooLarge(): UnsupportedError {
  return new UnsupportedError(
    "SESSION_DATA_TOO_LARGE",
    `A session's data may take ${sessionDataBytesMax} bytes as JSON. Keep the rest in a table and its id in the session.`,
  );
}
