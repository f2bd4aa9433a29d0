/** Topics, made where they are missing. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../kernel/log.ts";
import type { KafkaCluster } from "./kafka-cluster.ts";
import { KafkaAnswerError, kafkaErrors } from "./kafka-errors.ts";

export interface CreateTopicsOptions {
  readonly cluster: KafkaCluster;
  readonly topics: readonly string[];
  readonly partitions: number;
  readonly log: Logger;
}

const replicasMax = 3;
const pollMs = 50;

/**
 * Makes the topics that are missing, and waits until all of them have leaders. Three copies where there are as many brokers, two of
 * which have to be there for a message to count as stored. Raises `KafkaLinkError` and `KafkaAnswerError`.
 */
export async function createTopics({ cluster, topics, partitions, log }: CreateTopicsOptions): Promise<void> {
  const view = await cluster.look(topics);
  const missing = topics.filter((topic) => !view.leaders.has(topic));
  if (missing.length > 0) await create(cluster, missing, partitions, view.brokers.size);
  const giveUpAt = cluster.clock.monotonic() + cluster.times.requestMs;
  for (;;) {
    const { leaders } = await cluster.look(topics);
    const unready = topics.find((topic) => leaders.get(topic)?.every((leader) => leader >= 0) !== true);
    if (unready === undefined) {
      for (const topic of missing) log.info({ topic, partitions }, "a topic was made");
      for (const topic of topics) warnOfFewer(topic, leaders.get(topic)?.length ?? 0, partitions, log);
      return;
    }
    if (cluster.clock.monotonic() > giveUpAt) {
      throw new KafkaAnswerError(`topic ${unready} has partitions without a leader`, kafkaErrors.leaderNotAvailable);
    }
    cluster.forget();
    await sleep(pollMs);
  }
}

async function create(
  cluster: KafkaCluster,
  topics: readonly string[],
  partitions: number,
  brokers: number,
): Promise<void> {
  const { kafka, times } = cluster;
  const replicationFactor = Math.max(1, Math.min(replicasMax, brokers));
  const configs = replicationFactor < replicasMax ? [] : [{ name: "min.insync.replicas", value: "2" }];
  const wanted = topics.map((name) => ({
    ...{ name, numPartitions: partitions, replicationFactor, configs },
    assignments: [],
  }));
  const { controller } = await cluster.look([]);
  const ask = (link: Awaited<ReturnType<KafkaCluster["linkTo"]>>) =>
    link.ask(kafka.createTopics, [wanted, times.requestMs, false], times.requestMs + 500);
  const answer = controller >= 0 ? await ask(await cluster.linkTo(controller, "any")) : await cluster.anyBroker(ask);
  cluster.forget();
  for (const { name, errorCode, errorMessage } of answer.topics) {
    if (errorCode === 0 || errorCode === kafkaErrors.topicExists) continue;
    throw new KafkaAnswerError(`topic ${name} cannot be made (${errorMessage ?? "no reason given"})`, errorCode);
  }
}

function warnOfFewer(topic: string, found: number, wanted: number, log: Logger): void {
  if (found < wanted) log.warn({ topic, found, wanted }, "a topic has fewer partitions than the topology says");
}
