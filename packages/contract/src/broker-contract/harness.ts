/** What every part of the broker contract uses: apps of their own on one server, messages, and consumers that note what they get. */
import { systemClock, systemRandom, uuidV7 } from "rungs";
import type {
  Broker,
  BrokerConsumer,
  BrokerDelivery,
  BrokerMessage,
  ConsumeOptions,
  Subscription,
} from "rungs/queue/broker";

/** How a process of an app makes its broker; given as data so that child processes can do it too. */
export interface BrokerDriver {
  /** What to import, e.g. "rungs/queue/rabbitmq". */
  readonly module: string;
  /** Name of the exported function that takes `options` and gives the broker. */
  readonly factory: string;
  readonly options: Readonly<Record<string, unknown>>;
}

/** A real server. */
export interface BrokerServer {
  /**
   * The driver of an app that has nothing in common with other apps on the server. 4 partitions a handler. `isCrashing`: the server will be
   * killed; without, whatever takes time for that case only may be left out.
   */
  driver(app: string, options: { readonly isCrashing: boolean }): BrokerDriver;
  /** Kills it as a crash would. */
  kill(): Promise<void>;
  /** Starts it again with what it had written, and waits until it answers. */
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export interface BrokerContractOptions {
  readonly name: string;
  start(): Promise<BrokerServer>;
  /** Longest time until the share of a process that was killed is with others; default 15,000 ms. */
  readonly takeoverMs?: number;
}

/** What a consumer got, in order, and what it did with it. */
export interface Consumption {
  readonly consumer: BrokerConsumer;
  /** Everything that was delivered. */
  readonly delivered: BrokerDelivery[];
  /** What was worked on to its end. */
  readonly done: BrokerMessage[];
}

export const wentOff: Subscription = { event: "thing.happened", handler: "work.note" };

export type BrokerHarness = ReturnType<typeof brokerHarness>;

/** The helpers of the contract's parts over one driver. */
export function brokerHarness(contract: BrokerContractOptions) {
  let server: BrokerServer | undefined;
  let apps = 0;
  const running = () => {
    if (server === undefined) throw new Error("The server does not run.");
    return server;
  };

  /** Opens an app for the time of `use`. */
  async function withApp(
    use: (app: OpenApp) => Promise<void>,
    subscriptions: readonly Subscription[] = [wentOff],
    isCrashing = false,
  ): Promise<void> {
    const app = new OpenApp(running().driver(`app${++apps}`, { isCrashing }));
    try {
      await app.first.declare(subscriptions);
      await use(app);
    } finally {
      await app.close();
    }
  }

  return {
    takeoverMs: contract.takeoverMs ?? 15_000,
    withApp,
    server: running,
    async start() {
      server = await contract.start();
    },
    async stop() {
      await server?.stop();
    },
  };
}

/** An app with as many processes as are opened. */
export class OpenApp {
  readonly driver: BrokerDriver;
  private readonly brokers: Broker[] = [];
  private publisher: Broker | undefined;

  constructor(driver: BrokerDriver) {
    this.driver = driver;
  }

  /** The process that publishes. */
  readonly first = {
    declare: async (subscriptions: readonly Subscription[]) => (await this.own()).declare(subscriptions),
    publish: async (messages: readonly BrokerMessage[]) => (await this.own()).publish(messages),
    backlog: async (subscriptions: readonly Subscription[]) => (await this.own()).backlog(subscriptions),
    check: async () => (await this.own()).check(),
  };

  /** The broker of one more process. */
  async open(): Promise<Broker> {
    const broker = await openBroker(this.driver);
    this.brokers.push(broker);
    return broker;
  }

  /** One more process that consumes. */
  async consume(
    work: (delivery: BrokerDelivery, consumption: Consumption) => void,
    options: Partial<Omit<ConsumeOptions, "deliver">> = {},
  ): Promise<Consumption> {
    const delivered: BrokerDelivery[] = [];
    let consumption: Consumption | undefined;
    const early: BrokerDelivery[] = [];
    const broker = await this.open();
    const consumer = await broker.consume({
      subscriptions: [{ ...wentOff, room: 20 }],
      ...options,
      deliver: (delivery) => {
        delivered.push(delivery);
        if (consumption === undefined) early.push(delivery);
        else work(delivery, consumption);
      },
    });
    consumption = { consumer, delivered, done: [] };
    for (const delivery of early) work(delivery, consumption);
    return consumption;
  }

  async close(): Promise<void> {
    await Promise.all(this.brokers.map((broker) => broker.close()));
  }

  private async own(): Promise<Broker> {
    this.publisher ??= await this.open();
    return this.publisher;
  }
}

export async function openBroker({ module, factory, options }: BrokerDriver): Promise<Broker> {
  const exported = (await import(module)) as Record<string, (options: object) => Broker>;
  return (exported[factory] as (options: object) => Broker)(options);
}

/** Begins, notes and acknowledges at once. */
export const acknowledge = (delivery: BrokerDelivery, { done }: Consumption): void => {
  if (!delivery.begin()) return;
  done.push(delivery.message);
  delivery.ack();
};

/** A message of {@link wentOff}. */
export function messageOf(key: string | null, number: number, event = wentOff.event): BrokerMessage {
  return {
    id: uuidV7(systemClock, systemRandom),
    event,
    version: 1,
    key,
    payload: { number },
    publishedAt: new Date(),
    shard: 0,
  };
}

export const numberOf = ({ payload }: BrokerMessage): number => (payload as { number: number }).number;

/** Waits, with real time because a server's clock is in play; fails after `limitMs`. */
export async function until(condition: () => boolean | Promise<boolean>, limitMs = 15_000): Promise<void> {
  const deadline = performance.now() + limitMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not so after ${limitMs} ms: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/**
 * Works on the messages of a key one after the other, as the queue tier does, over all consumers that it is given to. What was begun
 * before is not begun again, but settled, as an inbox sees to. Notes per key what was done, and every breach of the rules.
 */
export class OrderedWork {
  readonly doneByKey = new Map<string, number[]>();
  readonly breaches: string[] = [];
  private readonly begun = new Set<string>();
  private readonly inWork = new Map<string, number>();
  private readonly chains = new WeakMap<Consumption, Map<string, Promise<void>>>();
  private readonly workMs: () => number;

  constructor(workMs: () => number = () => 0) {
    this.workMs = workMs;
  }

  get count(): number {
    return [...this.doneByKey.values()].reduce((sum, { length }) => sum + length, 0);
  }

  readonly work = (delivery: BrokerDelivery, consumption: Consumption): void => {
    const key = delivery.message.key ?? "";
    const chains = this.chains.get(consumption) ?? new Map<string, Promise<void>>();
    this.chains.set(consumption, chains);
    const before = chains.get(key) ?? Promise.resolve();
    chains.set(
      key,
      before.then(() => this.doOne(key, delivery, consumption)),
    );
  };

  private async doOne(key: string, delivery: BrokerDelivery, { done }: Consumption): Promise<void> {
    if (!delivery.begin()) return;
    const number = numberOf(delivery.message);
    const other = this.inWork.get(key);
    if (other !== undefined) this.breaches.push(`${key} ${number} was begun while ${other} was under way`);
    if (!this.begun.has(delivery.message.id)) {
      this.begun.add(delivery.message.id);
      this.inWork.set(key, number);
      await new Promise((resolve) => setTimeout(resolve, this.workMs()));
      this.inWork.delete(key);
      const numbers = this.doneByKey.get(key) ?? [];
      this.doneByKey.set(key, numbers);
      numbers.push(number);
      done.push(delivery.message);
    }
    delivery.ack();
  }
}
