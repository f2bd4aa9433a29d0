/** The brokers of one cluster: who they are, who leads which partition, and who coordinates which group. */
import type { Clock } from "../../kernel/clock.ts";
import type { ServerNode } from "../../kernel/server-address.ts";
import { KafkaAnswerError, KafkaLinkError, kafkaErrors } from "./kafka-errors.ts";
import { KafkaLink, type LinkOptions } from "./kafka-link.ts";
import type { KafkaPackage, MetadataAnswer } from "./kafka-load.ts";

/** Bounds of what is asked of a cluster, in ms. */
export interface KafkaTimes {
  /** Of a connection with its login; default 3,000. */
  readonly connectMs: number;
  /** Of one request; default 5,000. */
  readonly requestMs: number;
}

/** What is known of the brokers. */
export interface ClusterView {
  readonly brokers: ReadonlyMap<number, ServerNode>;
  readonly controller: number;
  /** Leader of each partition of a topic, by number; -1: none just now. */
  readonly leaders: ReadonlyMap<string, readonly number[]>;
}

export interface ClusterOptions extends Omit<LinkOptions, "kafka" | "connectMs"> {
  readonly kafka: KafkaPackage;
  readonly nodes: readonly ServerNode[];
  readonly times: KafkaTimes;
  readonly clock: Clock;
}

/** How long a view is believed; errors of leaders and coordinators end it at once. */
const viewMs = 30_000;

export class KafkaCluster {
  readonly kafka: KafkaPackage;
  readonly times: KafkaTimes;
  readonly clock: Clock;
  private readonly options: ClusterOptions;
  private readonly links = new Map<string, KafkaLink>();
  private readonly topics = new Set<string>();
  private view: ClusterView | undefined;
  private viewedAt = 0;
  private asking: Promise<ClusterView> | undefined;
  private isClosed = false;

  constructor(options: ClusterOptions) {
    this.options = options;
    this.kafka = options.kafka;
    this.times = options.times;
    this.clock = options.clock;
  }

  /** The view, with these topics in it. Raises {@link KafkaLinkError} when no broker answers. */
  async look(topics: readonly string[]): Promise<ClusterView> {
    const isKnown = topics.every((topic) => this.topics.has(topic));
    for (const topic of topics) this.topics.add(topic);
    const isFresh = this.view !== undefined && this.clock.monotonic() - this.viewedAt < viewMs;
    if (isKnown && isFresh && this.view !== undefined) return this.view;
    // One that was begun before a topic became known lacks it.
    if (!isKnown) await this.asking?.catch(() => {});
    this.asking ??= this.askView().finally(() => {
      this.asking = undefined;
    });
    return this.asking;
  }

  /** What is known is wrong: the next one who looks asks anew. */
  forget(): void {
    this.view = undefined;
  }

  /** A connection for one purpose; those of different purposes never wait for each other. */
  link(node: ServerNode, purpose: string): KafkaLink {
    const key = `${purpose} ${node.host}:${node.port}`;
    const known = this.links.get(key);
    if (known !== undefined) return known;
    const { options } = this;
    const link = new KafkaLink(node, { ...options, connectMs: options.times.connectMs });
    if (this.isClosed) link.close();
    else this.links.set(key, link);
    return link;
  }

  /** Ends the connections of a purpose. */
  unlink(purpose: string): void {
    for (const [key, link] of this.links) {
      if (!key.startsWith(`${purpose} `)) continue;
      link.close();
      this.links.delete(key);
    }
  }

  /** A connection to the broker of this number. Raises {@link KafkaLinkError} when it is not known. */
  async linkTo(broker: number, purpose: string): Promise<KafkaLink> {
    const node = (await this.look([])).brokers.get(broker);
    if (node !== undefined) return this.link(node, purpose);
    this.forget();
    throw new KafkaLinkError(`broker ${broker} is not known`);
  }

  /** Who coordinates a group now. Raises {@link KafkaLinkError}, or {@link KafkaAnswerError} while there is none. */
  async coordinatorOf(group: string): Promise<ServerNode> {
    const answer = await this.anyBroker((link) =>
      link.ask(this.kafka.findCoordinator, [0, [group]], this.times.requestMs),
    );
    const found = answer.coordinators.find(({ key }) => key === group);
    if (found === undefined) throw new KafkaAnswerError(`the coordinator of ${group} is not known`, -1);
    if (found.errorCode !== 0) throw new KafkaAnswerError(`the coordinator of ${group} is not known`, found.errorCode);
    return { host: found.host, port: found.port };
  }

  /** Asks brokers in turn until one answers. */
  async anyBroker<Answer>(ask: (link: KafkaLink) => Promise<Answer>): Promise<Answer> {
    const known = [...(this.view?.brokers.values() ?? [])];
    const isKnown = ({ host, port }: ServerNode) => known.some((each) => each.host === host && each.port === port);
    const nodes = [...known, ...this.options.nodes.filter((node) => !isKnown(node))];
    let problem: unknown;
    for (const node of nodes) {
      try {
        return await ask(this.link(node, "any"));
      } catch (error) {
        if (this.isClosed || !(error instanceof KafkaLinkError)) throw error;
        problem = error;
      }
    }
    throw problem;
  }

  close(): void {
    this.isClosed = true;
    for (const link of this.links.values()) link.close();
    this.links.clear();
  }

  private async askView(): Promise<ClusterView> {
    const { kafka, times, clock } = this;
    const answer = await this.anyBroker((link) =>
      link.ask(kafka.metadata, [[...this.topics], false, false], times.requestMs),
    );
    this.view = viewOf(answer);
    this.viewedAt = clock.monotonic();
    return this.view;
  }
}

/** A topic that is not there has no entry. Raises {@link KafkaAnswerError} where one may not be looked at. */
function viewOf({ brokers, controllerId, topics }: MetadataAnswer): ClusterView {
  const leaders = new Map<string, readonly number[]>();
  for (const { name, errorCode, partitions } of topics) {
    if (name === null || errorCode === kafkaErrors.unknownTopic) continue;
    if (errorCode !== 0 && errorCode !== kafkaErrors.leaderNotAvailable) {
      throw new KafkaAnswerError(`topic ${name} cannot be looked at`, errorCode);
    }
    const list: number[] = [];
    for (const { partitionIndex, leaderId } of partitions) list[partitionIndex] = leaderId;
    leaders.set(name, list);
  }
  return {
    brokers: new Map(brokers.map(({ nodeId, host, port }) => [nodeId, { host, port }])),
    controller: controllerId,
    leaders,
  };
}
