/**
 * Shared cache on memcached 1.6 or newer, one node or several, by the meta protocol. Commands of the same moment share a round trip.
 *
 * Items, under a prefix: `v:<key>`, and `l:<key>` for its lease: a reader whose `mg ... N` makes the item is given `W`, the flag
 * of the one who shall fill it, and the item's CAS number is the token; all others see the item, or `Z`. Both lie on the node that
 * the key belongs to (`memcached/hash-ring.ts`). When that node is down, its keys belong to the next one; whatever nodes hold
 * from before is judged by the entry's own number, so nothing old is served when they come and go.
 *
 * Times are whole seconds. A lease ends up to a second early, and what lives under two seconds is not kept.
 */
import { createHash } from "node:crypto";
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import { type Random, systemRandom } from "../../kernel/random.ts";
import type { Acquired, FoundValue, SharedCacheStore } from "../shared-cache-store.ts";
import { HashRing } from "./memcached/hash-ring.ts";
import type { MetaReply } from "./memcached/meta-reply.ts";
import { NodeConnection } from "./memcached/node-connection.ts";

/** Settings of {@link memcachedCacheStore}. */
export interface MemcachedCacheStoreOptions {
  /** `memcached://host:11211,host2:11211`. The port may be left out. */
  readonly url: string;
  /** Before every key; default "rungs:". */
  readonly prefix?: string;
  /** Bound of a command; default 250 ms. */
  readonly commandMs?: number;
  /** Commands that may wait on one connection; default 10,000. */
  readonly commandsMax?: number;
  readonly random?: Random;
}

const nodesMax = 64;
const keyBytesMax = 250;
/** Memcached reads a longer time as a date. */
const secondsMax = 30 * 24 * 60 * 60;
const form = /^memcached:\/\/([^/?#@]+)\/?$/;

/** Makes the store; its nodes are connected in the background. Raises `CONFIG_INVALID` for an address that cannot be used. */
export function memcachedCacheStore(options: MemcachedCacheStoreOptions): SharedCacheStore {
  return new MemcachedCacheStore(options);
}

/** The nodes of an address. Raises `CONFIG_INVALID`. */
export function parseMemcachedAddress(url: string): { readonly host: string; readonly port: number }[] {
  const [, hosts] = form.exec(url) ?? [];
  const nodes = (hosts ?? "").split(",").map((text) => {
    const [, bracketed, plain, digits = "11211"] =
      /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
    return { host: bracketed ?? plain ?? "", port: Number(digits) };
  });
  const areGood = nodes.every(({ host, port }) => host !== "" && port >= 1 && port <= 65_535);
  if (areGood && nodes.length <= nodesMax) return nodes;
  const message = `The address of memcached cannot be used: expected memcached://host:11211, or up to ${nodesMax} hosts with commas between them.`;
  throw new ConfigError("CONFIG_INVALID", message);
}

class MemcachedCacheStore implements SharedCacheStore {
  readonly capabilities = { isShared: true, resolutionMs: 1_000, valueBytesMax: 1_000_000 } as const;
  private readonly nodes: readonly NodeConnection[];
  private readonly ring: HashRing<NodeConnection>;
  private readonly prefix: string;

  constructor(options: MemcachedCacheStoreOptions) {
    const { url, prefix = "rungs:", commandMs = 250, commandsMax = 10_000, random = systemRandom } = options;
    this.prefix = prefix;
    const bounds = { commandMs, commandsMax, random };
    this.nodes = parseMemcachedAddress(url).map((node) => new NodeConnection({ ...node, ...bounds }));
    this.ring = new HashRing(this.nodes.map((node) => ({ name: node.name, node })));
  }

  async read(key: string): Promise<FoundValue | undefined> {
    return foundIn(await this.on(key, (node) => node.send(`mg ${this.valueKey(key)} v t`)));
  }

  async acquire(key: string, leaseMs: number): Promise<Acquired> {
    // In this order, and on one connection: the value as of after the lease was given.
    const [lease, value] = await this.on(key, (node) =>
      Promise.all([
        node.send(`mg ${this.leaseKey(key)} c N${secondsOf(leaseMs)}`),
        node.send(`mg ${this.valueKey(key)} v t`),
      ]),
    );
    if (lease.status !== "HD") throw unusable(`it answered ${described(lease)}`);
    return { lease: lease.flags.has("W") ? lease.flags.get("c") : undefined, found: foundIn(value) };
  }

  async renew(key: string, lease: string, leaseMs: number): Promise<boolean> {
    // Another's lease would be prolonged as well: that lets it live for its time once more, and nothing else.
    const reply = await this.on(key, (node) => node.send(`mg ${this.leaseKey(key)} c T${secondsOf(leaseMs)}`));
    return reply.status === "HD" && reply.flags.get("c") === lease;
  }

  async write(
    key: string,
    bytes: Buffer,
    { lifeMs, lease }: { readonly lifeMs: number; readonly lease?: string | undefined },
  ): Promise<void> {
    // One second more, since a second that has begun counts as one that is over.
    const seconds = Math.min(secondsMax, secondsOf(lifeMs) + 1);
    const [stored] = await this.on(key, (node) =>
      Promise.all([
        node.send(`ms ${this.valueKey(key)} ${bytes.length} T${seconds}`, bytes),
        ...(lease === undefined ? [] : [node.send(`md ${this.leaseKey(key)} C${lease}`)]),
      ]),
    );
    if (stored?.status !== "HD") throw unusable(`it did not store ${bytes.length} bytes: ${described(stored)}`);
  }

  async release(key: string, lease: string): Promise<void> {
    await this.on(key, (node) => node.send(`md ${this.leaseKey(key)} C${lease}`));
  }

  async delete(key: string): Promise<void> {
    await this.on(key, (node) => node.send(`md ${this.valueKey(key)}`));
  }

  async check(): Promise<void> {
    const down = this.nodes.filter((node) => !node.isUp);
    if (down.length > 0)
      throw unusable(`${down.map(({ name }) => name).join(", ")} of ${this.nodes.length} not connected`);
    await Promise.all(this.nodes.map((node) => this.reach(() => node.send("mn"))));
  }

  stats() {
    const sum = (of: (node: NodeConnection) => number) => this.nodes.reduce((total, node) => total + of(node), 0);
    return {
      commands: sum(({ counters }) => counters.commands),
      failures: sum(({ counters }) => counters.failures),
      connections: sum(({ counters }) => counters.connections),
    };
  }

  async close(): Promise<void> {
    for (const node of this.nodes) node.close();
  }

  private on<T>(key: string, work: (node: NodeConnection) => Promise<T>): Promise<T> {
    const node = this.ring.nodeOf(key, ({ isUp }) => isUp);
    if (node === undefined) return Promise.reject(unusable("no node is connected"));
    return this.reach(() => work(node));
  }

  private async reach<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      throw error instanceof UnavailableError
        ? error
        : unusable(error instanceof Error ? error.message : String(error), error);
    }
  }

  private valueKey(key: string): string {
    return this.itemKey("v:", key);
  }

  private leaseKey(key: string): string {
    return this.itemKey("l:", key);
  }

  /** Memcached takes 250 bytes without spaces and controls: other keys go by their hash, and the entry itself names its key. */
  private itemKey(kind: string, key: string): string {
    const plain = `${this.prefix}${kind}${key}`;
    if (plain.length <= keyBytesMax && /^[\x21-\x7e]+$/.test(plain) && !key.startsWith("sha256:")) return plain;
    return `${this.prefix}${kind}sha256:${createHash("sha256").update(key).digest("base64url")}`;
  }
}

function foundIn(reply: MetaReply): FoundValue | undefined {
  if (reply.status === "EN") return undefined;
  if (reply.status !== "VA" || reply.value === undefined) throw unusable(`it answered ${described(reply)}`);
  // Of the seconds left the current one is partly over, and `write` has added one.
  const seconds = Number(reply.flags.get("t") ?? 0);
  return { bytes: reply.value, remainingMs: Math.max(0, seconds - 1) * 1_000 };
}

function secondsOf(ms: number): number {
  return Math.min(secondsMax, Math.max(1, Math.ceil(ms / 1_000)));
}

function described(reply: MetaReply | undefined): string {
  return `${reply?.status ?? "nothing"} ${reply?.flags.get("message") ?? ""}`.trim();
}

function unusable(why: string, cause?: unknown): UnavailableError {
  return new UnavailableError("CACHE_STORE_UNREACHABLE", `The shared cache cannot be used: ${why}.`, {
    canRetry: true,
    cause,
  });
}
