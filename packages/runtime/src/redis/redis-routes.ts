/**
 * Which connection a key's commands take.
 *
 * A Cluster is routed here and not by the package, whose own Cluster client hides its connections: one that fell silent could
 * not be given up (see redis-link.ts), nor could anything be made sure of before a master that took over is used.
 *
 * - *slots* are read (`CLUSTER SLOTS`) from any node that answers, at the start, when a node says MOVED and when a connection
 *   failed: one reading at a time, and no more than one in 100 ms.
 * - MOVED and ASK are followed, five times at most.
 * - A node that becomes a master is connected anew, if it was connected as a replica: what must precede the use of a master
 *   that took over is tied to new connections.
 */
import type { Clock } from "../kernel/clock.ts";
import type { Logger } from "../kernel/log.ts";
import type { Random } from "../kernel/random.ts";
import type { ServerNode } from "../kernel/server-address.ts";
import type { RedisSocketClient, RedisTls } from "./load-redis.ts";
import type { RedisAddress } from "./redis-address.ts";
import { failureOf, LinkLostError, NotConnectedError, redirectOf } from "./redis-errors.ts";
import { checkIsMaster, type MasterFinder, sentinelFinder } from "./redis-finder.ts";
import { type LinkTimes, RedisLink } from "./redis-link.ts";
import { slotOf } from "./redis-slot.ts";

/** What links are made of. */
export interface LinkMaker {
  readonly name: string;
  readonly address: RedisAddress;
  readonly tls: RedisTls | undefined;
  readonly times: LinkTimes;
  readonly log: Logger;
  readonly clock: Clock;
  readonly random: Random;
}

/** Told of each connection that opened, with the way to give it up. */
export type OnOpen = (drop: (error: Error) => void) => void;

/** Sends commands where they belong. */
export interface RedisRoutes {
  send(key: string, args: readonly string[], deadlineAt: number): Promise<unknown>;
  /** A command failed: looks again where the key belongs, as far as the error gives reason to. */
  reconsider(key: string, error: unknown): Promise<void>;
  isOpen(key: string): boolean;
  waitUntilOpen(key: string, deadlineAt: number): Promise<void>;
  /** Resolves when all masters answer. */
  check(deadlineAt: number): Promise<void>;
  /** Why there is no connection, if there is none. */
  problem(): Error | undefined;
  /** Where subscriptions to the channel belong; undefined while nobody knows. */
  placeOf(channel: string): ServerNode | undefined;
  close(): Promise<void>;
}

/** Makes a link to a place that is looked for anew at each try. */
export function makeLink(
  maker: LinkMaker,
  find: MasterFinder,
  onOpen: (client: RedisSocketClient, link: RedisLink) => Promise<void> | void,
): RedisLink {
  const { address, name, tls, times, log, clock, random } = maker;
  return new RedisLink({
    ...{ name, find, tls, times, log, clock, random, login: address.login, database: address.database },
    canMove: address.kind === "sentinel",
    async prepare(client, link) {
      if (address.kind === "sentinel") await checkIsMaster(client, log);
      await onOpen(client, link);
    },
  });
}

/** Finds the one server, or the Sentinels' master. */
export function finderOf({ address, tls, times }: LinkMaker): MasterFinder {
  const [node] = address.nodes;
  return address.kind === "sentinel" ? sentinelFinder(address, { tls, connectMs: times.connectMs }) : async () => node;
}

/** All keys take the one connection to the master. */
export function masterRoutes(maker: LinkMaker, onOpen: OnOpen): RedisRoutes {
  const link = makeLink(maker, finderOf(maker), (_client, own) => onOpen((error) => own.drop(error)));
  return {
    send: (_key, args, deadlineAt) => link.send(args, deadlineAt),
    async reconsider(_key, error) {
      // A master that was demoted, or a replica behind a name that points elsewhere by now.
      if (failureOf(error) === "elsewhere" && isDemoted(error))
        link.drop(new LinkLostError("it is no longer the master"));
    },
    isOpen: () => link.isOpen,
    waitUntilOpen: async (_key, deadlineAt) => void (await link.opened(deadlineAt)),
    check: async (deadlineAt) => void (await link.send(["PING"], deadlineAt)),
    problem: () => (link.isOpen ? undefined : link.problem),
    placeOf: () => link.node,
    close: () => link.close(),
  };
}

const redirectsMax = 5;
const readAgainMs = 100;

/** Keys take the connection to the master of their slot. */
export function clusterRoutes(maker: LinkMaker, onOpen: OnOpen): RedisRoutes {
  return new ClusterRoutes(maker, onOpen);
}

class ClusterRoutes implements RedisRoutes {
  private readonly maker: LinkMaker;
  private readonly onOpen: OnOpen;
  private readonly links = new Map<string, RedisLink>();
  private slots: (string | undefined)[] = [];
  private masters: ReadonlySet<string> | undefined;
  private reading: Promise<void> | undefined;
  private readAt = Number.NEGATIVE_INFINITY;

  constructor(maker: LinkMaker, onOpen: OnOpen) {
    this.maker = maker;
    this.onOpen = onOpen;
    for (const node of maker.address.nodes) this.linkTo(addressOf(node));
  }

  async send(key: string, args: readonly string[], deadlineAt: number): Promise<unknown> {
    const slot = slotOf(key);
    let place = this.slots[slot] ?? (await this.lookUp(slot));
    let isAsking = false;
    for (let redirects = 0; ; redirects++) {
      const link = this.linkTo(place);
      // What must precede the use of a new connection is seen to before a command is sent, not on the way.
      if (!link.isOpen) throw new NotConnectedError(`there is no connection to ${place}`);
      try {
        return await (isAsking ? link.sendPair(["ASKING"], args, deadlineAt) : link.send(args, deadlineAt));
      } catch (error) {
        const failure = failureOf(error);
        const redirect = redirectOf(error);
        if ((failure !== "moved" && failure !== "ask") || redirect === undefined || redirects >= redirectsMax)
          throw error;
        isAsking = failure === "ask";
        place = redirect.address.startsWith(":") ? `${hostOf(place)}${redirect.address}` : redirect.address;
        if (isAsking) continue;
        this.slots[slot] = place;
        this.noteMasters();
        void this.read().catch(() => {});
      }
    }
  }

  async reconsider(key: string, error: unknown): Promise<void> {
    const failure = failureOf(error);
    if (failure === "elsewhere" && isDemoted(error)) {
      const place = this.slots[slotOf(key)];
      if (place !== undefined) this.links.get(place)?.drop(new LinkLostError("it is no longer a master"));
    }
    if (failure === "lost" || failure === "elsewhere") await this.read().catch(() => {});
  }

  isOpen(key: string): boolean {
    const place = this.slots[slotOf(key)];
    return place !== undefined && (this.links.get(place)?.isOpen ?? false);
  }

  async waitUntilOpen(key: string, deadlineAt: number): Promise<void> {
    await this.linkTo(this.slots[slotOf(key)] ?? (await this.lookUp(slotOf(key)))).opened(deadlineAt);
  }

  async check(deadlineAt: number): Promise<void> {
    if (this.slots.length === 0) await this.read();
    const masters = [...new Set(this.slots)];
    if (masters.length === 0 || masters.includes(undefined))
      throw new LinkLostError("the Cluster does not serve all slots");
    await Promise.all(masters.map((place) => this.linkTo(place as string).send(["PING"], deadlineAt)));
  }

  problem(): Error | undefined {
    const down = [...this.links.values()].filter((link) => !link.isOpen);
    return down[0]?.problem;
  }

  placeOf(channel: string): ServerNode | undefined {
    const place = this.slots[slotOf(channel)];
    return place === undefined ? undefined : nodeOf(place);
  }

  async close(): Promise<void> {
    await Promise.all([...this.links.values()].map((link) => link.close()));
  }

  private linkTo(place: string): RedisLink {
    const known = this.links.get(place);
    if (known !== undefined) return known;
    const link = makeLink(
      this.maker,
      async () => nodeOf(place),
      (_client, own) => this.onOpen((error) => own.drop(error)),
    );
    this.links.set(place, link);
    return link;
  }

  private async lookUp(slot: number): Promise<string> {
    await this.read();
    const place = this.slots[slot];
    if (place === undefined) throw new NotConnectedError(`no node serves slot ${slot}`);
    return place;
  }

  private read(): Promise<void> {
    const { clock } = this.maker;
    if (this.reading === undefined && clock.monotonic() - this.readAt < readAgainMs && this.slots.length > 0) {
      return Promise.resolve();
    }
    this.reading ??= this.readSlots().finally(() => {
      this.reading = undefined;
      this.readAt = clock.monotonic();
    });
    return this.reading;
  }

  /** Asks all nodes at once and takes the first answer: one that hangs must not hold the others up. */
  private async readSlots(): Promise<void> {
    const { clock, times } = this.maker;
    const deadlineAt = clock.monotonic() + times.commandMs;
    const places = new Set([...this.links.keys(), ...this.maker.address.nodes.map(addressOf)]);
    const asked = [...places].map(async (place) => {
      const link = this.linkTo(place);
      const slots = slotsOf(await link.send(["CLUSTER", "SLOTS"], deadlineAt), hostOf(place));
      if (slots.length === 0) throw new LinkLostError(`${place} knows of no slots`);
      return slots;
    });
    try {
      this.slots = await Promise.any(asked);
    } catch (error) {
      const [first] = error instanceof AggregateError ? error.errors : [error];
      throw first;
    }
    this.noteMasters();
    await this.forgetUnused();
  }

  private noteMasters(): void {
    const before = this.masters;
    this.masters = new Set(this.slots.flatMap((place) => place ?? []));
    if (before === undefined) return;
    for (const place of this.masters) {
      if (!before.has(place)) this.links.get(place)?.drop(new LinkLostError("it has become a master"));
    }
  }

  private async forgetUnused(): Promise<void> {
    const used = new Set([...this.slots, ...this.maker.address.nodes.map(addressOf)]);
    const unused = [...this.links].filter(([place]) => !used.has(place));
    for (const [place] of unused) this.links.delete(place);
    for (const [, link] of unused) void link.close();
  }
}

/** Reads the reply of CLUSTER SLOTS; a node that does not know its own host is at the one that was asked. */
function slotsOf(reply: unknown, askedHost: string): (string | undefined)[] {
  const slots: (string | undefined)[] = [];
  for (const range of Array.isArray(reply) ? reply : []) {
    const [from, to, master] = range as [number, number, readonly [string | null, number]];
    const host = master[0] === null || master[0] === "" ? askedHost : master[0];
    for (let slot = Number(from); slot <= Number(to); slot++) slots[slot] = `${host}:${master[1]}`;
  }
  return slots;
}

function isDemoted(error: unknown): boolean {
  return /^(?:READONLY|MASTERDOWN) /.test((error as Error).message);
}

function addressOf({ host, port }: ServerNode): string {
  return `${host}:${port}`;
}

function hostOf(place: string): string {
  return place.slice(0, place.lastIndexOf(":"));
}

function nodeOf(place: string): ServerNode {
  return { host: hostOf(place), port: Number(place.slice(place.lastIndexOf(":") + 1)) };
}
