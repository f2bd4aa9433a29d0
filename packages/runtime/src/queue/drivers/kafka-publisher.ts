/**
 * Puts records into their partitions, in order and acknowledged by all replicas in sync.
 *
 * Calls that come while one send is under way go together into the next. Of a partition one batch is under way at a time; what is not
 * acknowledged is sent again with the same number, which the broker knows when it stored it already (KIP-98). A call that fails ends
 * the producer's identity, so that its numbers, whose fate is not known, are never used for anything else.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Logger } from "../../kernel/log.ts";
import type { Random } from "../../kernel/random.ts";
import type { KafkaCluster } from "./kafka-cluster.ts";
import { KafkaAnswerError, KafkaLinkError, kafkaErrors } from "./kafka-errors.ts";
import type { ProducedRecord } from "./kafka-load.ts";

export interface PublisherOptions {
  readonly cluster: KafkaCluster;
  /** How long a send is tried. */
  readonly publishMs: number;
  readonly log: Logger;
  readonly random: Random;
}

interface Call {
  readonly records: readonly ProducedRecord[];
  resolve(): void;
  reject(error: unknown): void;
}

interface Producer {
  readonly id: bigint;
  readonly epoch: number;
  /** Number of the next record, by "topic:partition". */
  readonly sequences: Map<string, number>;
}

/** Records of one partition that go together. */
type Batch = readonly ProducedRecord[];

/** In one send, and in one batch; far below `message.max.bytes`, 1 MiB. */
const recordsMax = 2_000;
const batchBytesMax = 256 * 1_024;
/** Records that wait; a call beyond them is refused. */
const waitingMax = 100_000;
const retryMs = { first: 20, max: 500 };

/** Trying again cannot help. */
const hopeless: readonly number[] = [
  kafkaErrors.messageTooLarge,
  kafkaErrors.topicForbidden,
  kafkaErrors.clusterForbidden,
];
const identityLost: readonly number[] = [
  kafkaErrors.outOfOrderSequence,
  kafkaErrors.unknownProducer,
  kafkaErrors.invalidProducerEpoch,
];

export class KafkaPublisher {
  private readonly options: PublisherOptions;
  private readonly waiting: Call[] = [];
  private waitingRecords = 0;
  private running: Promise<void> | undefined;
  private producer: Producer | undefined;
  private readonly closing = new AbortController();

  constructor(options: PublisherOptions) {
    this.options = options;
  }

  /** Resolves when all are stored. Raises `KafkaLinkError` or `KafkaAnswerError`; any of them may be stored then. */
  send(records: readonly ProducedRecord[]): Promise<void> {
    if (records.length === 0) return Promise.resolve();
    if (this.closing.signal.aborted) return Promise.reject(new KafkaLinkError("it was closed"));
    if (this.waitingRecords + records.length > waitingMax) {
      return Promise.reject(new KafkaLinkError(`${this.waitingRecords} messages wait already; limit ${waitingMax}`));
    }
    return new Promise((resolve, reject) => {
      this.waiting.push({ records, resolve, reject });
      this.waitingRecords += records.length;
      this.running ??= this.run().finally(() => {
        this.running = undefined;
      });
    });
  }

  async close(): Promise<void> {
    this.closing.abort();
    await this.running;
  }

  private async run(): Promise<void> {
    while (this.waiting.length > 0) {
      const calls = this.takeCalls();
      try {
        await this.sendAll(calls.flatMap(({ records }) => records));
        for (const call of calls) call.resolve();
      } catch (error) {
        this.producer = undefined;
        for (const call of calls) call.reject(error);
      }
    }
  }

  private takeCalls(): Call[] {
    const calls: Call[] = [];
    let count = 0;
    for (let call = this.waiting[0]; call !== undefined; call = this.waiting[0]) {
      if (calls.length > 0 && count + call.records.length > recordsMax) break;
      calls.push(call);
      count += call.records.length;
      this.waiting.shift();
    }
    this.waitingRecords -= count;
    return calls;
  }

  private async sendAll(records: readonly ProducedRecord[]): Promise<void> {
    const { cluster, publishMs, log, random } = this.options;
    const giveUpAt = cluster.clock.monotonic() + publishMs;
    const left = batchesOf(records);
    for (let failures = 0; left.size > 0; ) {
      try {
        await this.sendFirst(left);
        failures = 0;
      } catch (error) {
        const code = error instanceof KafkaAnswerError ? error.code : undefined;
        if (code !== undefined && hopeless.includes(code)) throw error;
        // Once more, in case it is only not known here yet.
        if (code === kafkaErrors.unknownTopic && failures > 0) throw error;
        if (this.closing.signal.aborted || cluster.clock.monotonic() > giveUpAt) throw error;
        log.debug({ error }, "messages were not taken by Kafka; it is tried on");
        cluster.forget();
        const ms = Math.min(retryMs.max, retryMs.first * 2 ** Math.min(failures++, 10)) * (0.5 + random.next() / 2);
        await sleep(ms, undefined, { signal: this.closing.signal }).catch(() => {});
      }
    }
  }

  /** Sends the first batch of each partition, and takes out those that were stored. */
  private async sendFirst(left: Map<string, Batch[]>): Promise<void> {
    const { cluster } = this.options;
    const topics = [...new Set([...left.values()].map((batches) => batches[0]?.[0]?.topic ?? ""))];
    const [view, producer] = await Promise.all([cluster.look(topics), this.identify()]);
    const byLeader = new Map<number, Map<string, Batch>>();
    for (const [key, [batch]] of left) {
      if (batch?.[0] === undefined) continue;
      if (!view.leaders.has(batch[0].topic)) {
        throw new KafkaAnswerError(`topic ${batch[0].topic} is not there`, kafkaErrors.unknownTopic);
      }
      const leader = view.leaders.get(batch[0].topic)?.[batch[0].partition] ?? -1;
      if (leader === -1) throw new KafkaAnswerError(`${key} has no leader`, kafkaErrors.leaderNotAvailable);
      byLeader.set(leader, (byLeader.get(leader) ?? new Map<string, Batch>()).set(key, batch));
    }
    const sent = [...byLeader].map(async ([leader, batches]) => {
      for (const key of await this.produce(leader, producer, batches)) {
        const rest = left.get(key)?.slice(1) ?? [];
        if (rest.length > 0) left.set(key, rest);
        else left.delete(key);
      }
    });
    const [problem] = (await Promise.allSettled(sent)).filter((outcome) => outcome.status === "rejected");
    if (problem !== undefined) throw problem.reason;
  }

  /** Gives the partitions that took theirs. Raises when none of them did. */
  private async produce(leader: number, producer: Producer, batches: ReadonlyMap<string, Batch>): Promise<string[]> {
    const { cluster } = this.options;
    const { requestMs } = cluster.times;
    const link = await cluster.linkTo(leader, "publish");
    const records = [...batches.values()].flat().map((record) => ({ ...record }));
    const answer = await link.ask(
      cluster.kafka.produce,
      [
        -1,
        requestMs,
        records,
        {
          producerId: producer.id,
          producerEpoch: producer.epoch,
          sequences: { getWithDefault: (key, missing) => producer.sequences.get(key) ?? missing },
          compression: "none",
        },
      ],
      requestMs + 500,
    );
    const stored: string[] = [];
    let problem: KafkaAnswerError | undefined;
    for (const { name, partitionResponses } of answer.responses) {
      for (const { index, errorCode } of partitionResponses) {
        const key = `${name}:${index}`;
        if (errorCode === 0 || errorCode === kafkaErrors.duplicateSequence) {
          producer.sequences.set(key, nextNumber(producer.sequences.get(key), batches.get(key)));
          stored.push(key);
        } else {
          if (identityLost.includes(errorCode)) this.producer = undefined;
          problem = new KafkaAnswerError(`messages for ${key} were refused`, errorCode);
        }
      }
    }
    if (problem !== undefined && (stored.length === 0 || hopeless.includes(problem.code))) throw problem;
    return stored;
  }

  private async identify(): Promise<Producer> {
    if (this.producer !== undefined) return this.producer;
    const { cluster } = this.options;
    const answer = await cluster.anyBroker((link) =>
      link.ask(cluster.kafka.initProducerId, [null, 0, -1n, -1], cluster.times.requestMs),
    );
    if (answer.errorCode !== 0) throw new KafkaAnswerError("no producer's identity was given", answer.errorCode);
    this.producer = { id: answer.producerId, epoch: answer.producerEpoch, sequences: new Map() };
    return this.producer;
  }
}

/** Records by partition, in order, in batches of bounded size. */
function batchesOf(records: readonly ProducedRecord[]): Map<string, Batch[]> {
  const found = new Map<string, { readonly batches: ProducedRecord[][]; bytes: number }>();
  for (const record of records) {
    const key = `${record.topic}:${record.partition}`;
    const place = found.get(key) ?? { batches: [[]], bytes: 0 };
    found.set(key, place);
    const bytes = record.value.length + (record.key?.length ?? 0) + 32;
    const last = place.batches.at(-1);
    if (last !== undefined && (last.length === 0 || place.bytes + bytes <= batchBytesMax)) {
      last.push(record);
      place.bytes += bytes;
    } else {
      place.batches.push([record]);
      place.bytes = bytes;
    }
  }
  return new Map([...found].map(([key, { batches }]) => [key, batches]));
}

/** Numbers of a producer's records begin again after the largest that fits 31 bits. */
function nextNumber(number = 0, batch: Batch = []): number {
  return (number + batch.length) % 2 ** 31;
}
