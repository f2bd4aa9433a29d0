/**
 * Subscriptions of a process to channels: one connection, or in a Cluster one to each master that has a channel of ours.
 *
 * A connection subscribes to all its channels before it counts as open. After one that was not the first, and when a channel
 * moved to another master, the messages sent meanwhile are lost: that is told to those who listen for gaps.
 */
import type { ChannelListener, RedisSocketClient } from "./load-redis.ts";
import { failureOf, LinkLostError, NotConnectedError } from "./redis-errors.ts";
import type { RedisLink } from "./redis-link.ts";
import { finderOf, type LinkMaker, makeLink, type RedisRoutes } from "./redis-routes.ts";

/** The subscriptions of a process. */
export interface RedisSubscriber {
  subscribe(channel: string, listener: ChannelListener): Promise<() => Promise<void>>;
  onGap(listener: (channels: readonly string[]) => void): () => void;
  close(): Promise<void>;
}

interface Channel {
  readonly name: string;
  readonly listeners: Set<ChannelListener>;
  readonly hear: ChannelListener;
  place: Place | undefined;
  ready: Promise<void>;
}

/** A connection and the channels that are subscribed by it. */
interface Place {
  readonly key: string;
  readonly link: RedisLink;
  readonly channels: Set<Channel>;
  client: RedisSocketClient | undefined;
}

const movesMax = 20;
const moveWaitMs = 100;

/** Makes the subscriptions; nothing is connected until the first. */
export function redisSubscriber(maker: LinkMaker, routes: RedisRoutes): RedisSubscriber {
  return new Subscriptions(maker, routes);
}

class Subscriptions implements RedisSubscriber {
  private readonly maker: LinkMaker;
  private readonly routes: RedisRoutes;
  private readonly isCluster: boolean;
  private readonly channels = new Map<string, Channel>();
  private readonly places = new Map<string, Place>();
  private readonly gapListeners = new Set<(channels: readonly string[]) => void>();

  constructor(maker: LinkMaker, routes: RedisRoutes) {
    this.maker = maker;
    this.routes = routes;
    this.isCluster = maker.address.kind === "cluster";
  }

  async subscribe(name: string, listener: ChannelListener): Promise<() => Promise<void>> {
    // Its own function, so that one listener may subscribe twice.
    const own: ChannelListener = (message, channel) => listener(message, channel);
    const channel = this.channels.get(name) ?? this.add(name);
    channel.listeners.add(own);
    try {
      await channel.ready;
    } catch (error) {
      await this.leave(channel, own);
      throw error;
    }
    return () => this.leave(channel, own);
  }

  onGap(listener: (channels: readonly string[]) => void): () => void {
    this.gapListeners.add(listener);
    return () => void this.gapListeners.delete(listener);
  }

  async close(): Promise<void> {
    const places = [...this.places.values()];
    this.places.clear();
    this.channels.clear();
    await Promise.all(places.map(({ link }) => link.close()));
  }

  private add(name: string): Channel {
    const listeners = new Set<ChannelListener>();
    const hear: ChannelListener = (message) => {
      for (const listener of listeners) listener(message, name);
    };
    const channel: Channel = { name, listeners, hear, place: undefined, ready: Promise.resolve() };
    this.channels.set(name, channel);
    channel.ready = this.settle(channel);
    channel.ready.catch(() => {});
    return channel;
  }

  private async leave(channel: Channel, own: ChannelListener): Promise<void> {
    if (!channel.listeners.delete(own) || channel.listeners.size > 0) return;
    // Whoever comes next makes a subscription of their own, while this one is being ended.
    if (this.channels.get(channel.name) === channel) this.channels.delete(channel.name);
    const { place } = channel;
    place?.channels.delete(channel);
    const client = place?.client;
    if (place === undefined || client === undefined) return;
    const work = () =>
      this.isCluster ? client.sUnsubscribe(channel.name, channel.hear) : client.unsubscribe(channel.name, channel.hear);
    // A connection that is lost has no subscriptions left.
    await place.link.exchange(client, work, this.deadline()).catch(() => {});
  }

  /** Subscribes the channel where it belongs, however often that moves meanwhile. */
  private async settle(channel: Channel): Promise<void> {
    for (let moves = 0; ; moves++) {
      const place = await this.placeFor(channel.name);
      channel.place = place;
      place.channels.add(channel);
      try {
        const client = await place.link.opened(this.deadline());
        await place.link.exchange(client, () => this.subscribeBy(client, [channel]), this.deadline());
        return;
      } catch (error) {
        place.channels.delete(channel);
        channel.place = undefined;
        if (!this.isCluster || failureOf(error) === "mistake" || moves >= movesMax) throw error;
        await this.reconsider(channel.name, error);
      }
    }
  }

  private async reconsider(name: string, error: unknown): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, moveWaitMs).unref());
    const reason = failureOf(error) === "moved" ? new LinkLostError("a channel moved") : error;
    await this.routes.reconsider(name, reason);
  }

  private async placeFor(name: string): Promise<Place> {
    if (!this.isCluster) return this.placeAt("master", finderOf(this.maker));
    const node = this.routes.placeOf(name);
    if (node === undefined) throw new NotConnectedError("no node serves the channel");
    return this.placeAt(`${node.host}:${node.port}`, async () => node);
  }

  private placeAt(key: string, find: ReturnType<typeof finderOf>): Place {
    const known = this.places.get(key);
    if (known !== undefined) return known;
    const channels = new Set<Channel>();
    let opened = 0;
    const prepare = async (client: RedisSocketClient) => {
      client.on("sharded-channel-moved", (name) => this.moved(place, String(name)));
      place.client = client;
      const isFirst = opened++ === 0;
      if (isFirst || channels.size === 0) return;
      const again = [...channels];
      try {
        await this.subscribeBy(client, again);
      } catch (error) {
        if (!this.isCluster || failureOf(error) !== "moved") throw error;
        // Some are not this node's any more: each finds its own way.
        for (const channel of again) this.move(place, channel);
        return;
      }
      this.tellGap(again);
    };
    const place: Place = { key, channels, client: undefined, link: makeLink(this.maker, find, prepare) };
    this.places.set(key, place);
    if (this.isCluster) this.watch(place);
    return place;
  }

  /** A master of a Cluster that does not come back has been replaced: its channels belong elsewhere. */
  private watch(place: Place): void {
    const timer = setInterval(() => {
      if (this.places.get(place.key) !== place) return clearInterval(timer);
      if (place.link.isOpen) return;
      if (place.channels.size === 0) {
        // Nothing of ours is there, and perhaps no node any more.
        this.places.delete(place.key);
        void place.link.close();
        return;
      }
      void this.routes.reconsider(
        [...place.channels][0]?.name ?? "",
        new LinkLostError("a subscriber's connection is down"),
      );
      for (const channel of [...place.channels]) {
        const node = this.routes.placeOf(channel.name);
        if (node !== undefined && `${node.host}:${node.port}` !== place.key) this.move(place, channel);
      }
    }, moveWaitMs * 5);
    timer.unref();
  }

  private moved(place: Place, name: string): void {
    const channel = this.channels.get(name);
    if (channel !== undefined && channel.place === place) this.move(place, channel);
  }

  private move(place: Place, channel: Channel): void {
    place.channels.delete(channel);
    if (this.channels.get(channel.name) !== channel) return;
    channel.ready = this.reconsider(channel.name, new LinkLostError("a channel moved"))
      .then(() => this.settle(channel))
      .then(() => this.tellGap([channel]));
    // Whoever subscribes next hears of it; those who listen already are told by the gap once it works again.
    channel.ready.catch(() => setTimeout(() => this.move(place, channel), moveWaitMs * 10).unref());
  }

  /** One listener a channel, so that the package keeps no list of ours. */
  private async subscribeBy(client: RedisSocketClient, channels: readonly Channel[]): Promise<void> {
    const each = channels.map(({ name, hear }) =>
      this.isCluster ? client.sSubscribe(name, hear) : client.subscribe(name, hear),
    );
    await Promise.all(each);
  }

  private tellGap(channels: readonly Channel[]): void {
    const names = channels.map(({ name }) => name);
    for (const listener of this.gapListeners) listener(names);
  }

  private deadline(): number {
    return this.maker.clock.monotonic() + this.maker.times.commandMs;
  }
}
