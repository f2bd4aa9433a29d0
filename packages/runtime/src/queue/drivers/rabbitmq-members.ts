/**
 * Which processes work on which handlers, as they tell each other through a fanout exchange.
 *
 * - *join*: a process that comes, or comes back after its connection was lost, says hello; all others answer at once. It takes part after
 *   `settleMs`, when it has heard of them.
 * - *live*: each says so every second, with the handlers it has. One that was not heard of for 5 s is taken for dead.
 * - *leave*: said in passing; the others take over at once.
 * - *deaf*: a process that does not hear its own words judges nobody. When RabbitMQ is down or takes no messages, all stay as they were; one
 *   that comes then takes part after 3 s, with whom it knows of, because what makes room again is to consume.
 *
 * Views may differ for a moment. Then two processes want one sequence, or none does: the first is settled by the queue, which has one
 * active consumer, and the second passes.
 */
import type { Clock } from "../../kernel/clock.ts";
import { type Random, uuidV7 } from "../../kernel/random.ts";
import type { AmqpChannel } from "./rabbitmq-client.ts";
import { closeQuietly, type RabbitmqLink } from "./rabbitmq-link.ts";
import type { RabbitmqNames } from "./rabbitmq-topology.ts";

const announceMs = 1_000;
const silenceMsMax = 5_000;
const settleMs = 250;
const deafMs = 3_000;
const rejoinMs = { first: 100, max: 2_000 };

interface Announcement {
  readonly kind: "hello" | "alive" | "leaving";
  readonly member: string;
  /** Messages it holds of each of its handlers. */
  readonly held: Readonly<Record<string, number>>;
}

interface Member {
  readonly held: Readonly<Record<string, number>>;
  readonly heardAt: number;
}

export interface RabbitmqMembersOptions {
  readonly link: RabbitmqLink;
  readonly names: RabbitmqNames;
  readonly clock: Clock;
  readonly random: Random;
  /** This process. */
  readonly member: string;
  /** Its handlers and what it holds of each; undefined: it only listens. */
  readonly held?: () => Readonly<Record<string, number>>;
  /** Members came or went, or a second has passed. */
  readonly onChange?: () => void;
}

export class RabbitmqMembers {
  private readonly options: RabbitmqMembersOptions;
  private readonly members = new Map<string, Member>();
  private readonly timer: NodeJS.Timeout;
  private channel: AmqpChannel | undefined;
  private retryTimer: NodeJS.Timeout | undefined;
  private selfHeardAt = Number.NEGATIVE_INFINITY;
  private joinedAt = Number.POSITIVE_INFINITY;
  private settledAt = Number.POSITIVE_INFINITY;
  private failuresInRow = 0;
  private isClosed = false;

  constructor(options: RabbitmqMembersOptions) {
    this.options = options;
    this.timer = setInterval(() => this.tick(), announceMs).unref();
  }

  /** Joins. Raises when RabbitMQ is not there; whatever happens later heals by itself. */
  async start(): Promise<void> {
    await this.join();
  }

  /** The live processes that work on this handler, this one included; undefined as long as this process cannot know. */
  of(handler: string): readonly string[] | undefined {
    if (!this.isSettled()) return undefined;
    return [...this.members].flatMap(([name, { held }]) => (Object.hasOwn(held, handler) ? [name] : []));
  }

  /** Messages of this handler that live processes held when they last said so. */
  heldOf(handler: string): number {
    return [...this.members.values()].reduce((sum, { held }) => sum + (held[handler] ?? 0), 0);
  }

  /** Tells the others to take over. */
  leave(): void {
    this.announce("leaving");
  }

  close(): void {
    this.isClosed = true;
    clearInterval(this.timer);
    clearTimeout(this.retryTimer);
    if (this.channel !== undefined) closeQuietly(this.channel);
  }

  private isSettled(): boolean {
    return this.options.clock.monotonic() >= this.settledAt;
  }

  private async join(): Promise<void> {
    const { link, names, clock, random } = this.options;
    const channel = await link.channel();
    if (this.isClosed) return closeQuietly(channel);
    this.settledAt = Number.POSITIVE_INFINITY;
    this.channel = channel;
    try {
      // A new name each time: the server may not have noticed yet that the last connection is gone.
      const queue = names.member(uuidV7(clock, random));
      await channel.queueDeclare({ queue, exclusive: true, autoDelete: true });
      await channel.queueBind({ queue, exchange: names.members });
      await channel.basicConsume({ queue, noAck: true }, ({ body }) => this.hear(body));
      if (!channel.active) throw new Error("the channel was closed");
    } catch (error) {
      closeQuietly(channel);
      throw link.failure("bring news of other processes", error);
    }
    this.failuresInRow = 0;
    this.joinedAt = clock.monotonic();
    channel.on("close", () => this.rejoinLater());
    channel.on("basic.cancel", () => closeQuietly(channel));
    this.announce("hello");
  }

  private rejoinLater(): void {
    if (this.isClosed) return;
    clearTimeout(this.retryTimer);
    const { first, max } = rejoinMs;
    const waitMs = Math.min(max, first * 2 ** Math.min(this.failuresInRow++, 10)) * (0.5 + this.options.random.next());
    this.retryTimer = setTimeout(() => void this.join().catch(() => this.rejoinLater()), waitMs).unref();
  }

  private tick(): void {
    this.announce("alive");
    this.takePartThoughDeaf();
    const eldest = this.selfHeardAt - silenceMsMax;
    for (const [name, { heardAt }] of this.members) if (heardAt < eldest) this.members.delete(name);
    this.options.onChange?.();
  }

  private takePartThoughDeaf(): void {
    const { clock, member, held } = this.options;
    const now = clock.monotonic();
    if (this.settledAt !== Number.POSITIVE_INFINITY || now - this.joinedAt < deafMs) return;
    if (held !== undefined) this.members.set(member, { held: held(), heardAt: now });
    this.settledAt = now;
  }

  private announce(kind: Announcement["kind"]): void {
    const { names, member, held } = this.options;
    const { channel } = this;
    if (channel?.active !== true) return;
    const news: Announcement = { kind, member, held: held?.() ?? {} };
    // Lost ones are made up for by the next.
    void channel
      .basicPublish({ exchange: names.members, routingKey: "", contentType: "application/json" }, bytesOf(news))
      .catch(() => {});
  }

  private hear(body: unknown): void {
    const news = announcementOf(body);
    if (news === undefined || this.isClosed) return;
    const { member, kind, held } = news;
    const now = this.options.clock.monotonic();
    const before = this.members.get(member);
    if (kind === "leaving") this.members.delete(member);
    else this.members.set(member, { held, heardAt: now });
    if (member === this.options.member) this.hearSelf(now);
    else if (kind === "hello" && this.options.held !== undefined) this.announce("alive");
    if ((before === undefined) !== (kind === "leaving")) this.options.onChange?.();
  }

  private hearSelf(now: number): void {
    this.selfHeardAt = now;
    if (this.settledAt !== Number.POSITIVE_INFINITY) return;
    this.settledAt = now + settleMs;
    setTimeout(() => this.options.onChange?.(), settleMs + 1).unref();
  }
}

function bytesOf(news: Announcement): Buffer {
  return Buffer.from(JSON.stringify(news));
}

function announcementOf(body: unknown): Announcement | undefined {
  if (typeof body !== "object" || body === null || Buffer.isBuffer(body)) return undefined;
  const { kind, member, held } = body as Partial<Announcement>;
  if (typeof member !== "string" || typeof held !== "object" || held === null) return undefined;
  return kind === "hello" || kind === "alive" || kind === "leaving" ? { kind, member, held } : undefined;
}
