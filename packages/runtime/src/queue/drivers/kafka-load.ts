/**
 * The package @platformatic/kafka, loaded when it is first needed, and typed as the part that is used of it.
 *
 * What is used is its protocol: connections with TLS and SASL, requests and answers of stated versions, and record batches. Its
 * producer and consumer are not, for these reasons (2.12.1): a commit carries no metadata, of which `kafka-progress.ts` makes the
 * difference between a message that may have been begun and one that was not; a partition that is to be given away cannot wait for
 * what was begun in it; and two sends at a time take the same sequence numbers of an idempotent producer.
 *
 * Versions of requests are those that Kafka 3.7 and all later ones so far know.
 */
import { ConfigError } from "../../kernel/errors.ts";

/** One connection as the package makes it. */
export interface KafkaConnection {
  connect(host: string, port: number): Promise<void>;
  readonly socket: { destroy(): unknown; unref(): unknown } | undefined;
  on(event: "error" | "close", listener: (error?: Error) => void): unknown;
}

/** A request of one version; `arguments` as its protocol lists them. */
export interface KafkaApi<Arguments extends readonly unknown[], Answer> {
  async(connection: KafkaConnection, ...args: Arguments): Promise<Answer>;
}

/** How a connection signs in. */
export interface KafkaSasl {
  readonly mechanism: "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512";
  readonly username: string;
  readonly password: string;
}

/** Options of a connection; times in ms. */
export interface KafkaConnectionOptions {
  readonly connectTimeout: number;
  readonly requestTimeout: number;
  readonly maxInflights: number;
  readonly tls?: { readonly ca?: string | undefined; readonly servername?: string };
  readonly sasl?: KafkaSasl;
}

/** A record of a fetched batch. */
export interface KafkaRecord {
  readonly offsetDelta: number;
  readonly key: Uint8Array | null;
  readonly value: Uint8Array | null;
}

/** A batch as it lies in the log. */
export interface KafkaBatch {
  readonly firstOffset: bigint;
  readonly attributes: number;
  readonly lastOffsetDelta: number;
  readonly records: readonly KafkaRecord[];
}

interface Coded {
  readonly errorCode: number;
}

/** Per topic, per partition: what many answers look like. */
export interface PartitionAnswers<Extra> {
  readonly topics: readonly {
    readonly name: string;
    readonly partitions: readonly (Coded & { readonly partitionIndex: number } & Extra)[];
  }[];
}

export interface MetadataAnswer {
  readonly brokers: readonly { readonly nodeId: number; readonly host: string; readonly port: number }[];
  readonly controllerId: number;
  readonly topics: readonly (Coded & {
    readonly name: string | null;
    readonly partitions: readonly (Coded & { readonly partitionIndex: number; readonly leaderId: number })[];
  })[];
}

export interface JoinGroupAnswer extends Coded {
  readonly generationId: number;
  readonly protocolName: string | null;
  readonly leader: string;
  readonly memberId: string | null;
  readonly members: readonly { readonly memberId: string; readonly metadata: Uint8Array | null }[];
}

export interface FetchAnswer extends Coded {
  readonly responses: readonly {
    readonly topicId: string;
    readonly partitions: readonly (Coded & {
      readonly partitionIndex: number;
      readonly logStartOffset: bigint;
      readonly records?: readonly KafkaBatch[] | undefined;
    })[];
  }[];
}

export interface ProduceAnswer {
  readonly responses: readonly {
    readonly name: string;
    readonly partitionResponses: readonly (Coded & { readonly index: number })[];
  }[];
}

/** A record to be produced. */
export interface ProducedRecord {
  readonly topic: string;
  readonly partition: number;
  readonly key?: Uint8Array;
  readonly value: Uint8Array;
}

/** Number of the first record of a batch, by "topic:partition". */
export interface KafkaSequences {
  getWithDefault(key: string, missing: number): number;
}

/** The part of the package that is used. */
export interface KafkaPackage {
  readonly Connection: new (clientId: string, options: KafkaConnectionOptions) => KafkaConnection;
  readonly metadata: KafkaApi<
    [topics: readonly string[] | null, autoCreate: boolean, authorized: boolean],
    MetadataAnswer
  >;
  readonly findCoordinator: KafkaApi<
    [keyType: 0, groups: readonly string[]],
    {
      readonly coordinators: readonly (Coded & {
        readonly key: string;
        readonly nodeId: number;
        readonly host: string;
        readonly port: number;
      })[];
    }
  >;
  readonly joinGroup: KafkaApi<
    [
      group: string,
      sessionMs: number,
      rebalanceMs: number,
      memberId: string,
      instanceId: null,
      protocolType: string,
      protocols: readonly { readonly name: string; readonly metadata: Uint8Array }[],
      reason: string | null,
    ],
    JoinGroupAnswer
  >;
  readonly syncGroup: KafkaApi<
    [
      group: string,
      generation: number,
      memberId: string,
      instanceId: null,
      protocolType: string,
      protocol: string,
      assignments: readonly { readonly memberId: string; readonly assignment: Uint8Array }[],
    ],
    Coded & { readonly assignment: Uint8Array }
  >;
  readonly heartbeat: KafkaApi<[group: string, generation: number, memberId: string, instanceId: null], Coded>;
  readonly leaveGroup: KafkaApi<[group: string, members: readonly { readonly memberId: string }[]], Coded>;
  readonly offsetCommit: KafkaApi<
    [
      group: string,
      generation: number,
      memberId: string,
      instanceId: null,
      topics: readonly {
        readonly name: string;
        readonly partitions: readonly {
          readonly partitionIndex: number;
          readonly committedOffset: bigint;
          readonly committedLeaderEpoch: number;
          readonly committedMetadata: string;
        }[];
      }[],
    ],
    PartitionAnswers<object>
  >;
  readonly offsetFetch: KafkaApi<
    [
      groups: readonly {
        readonly groupId: string;
        readonly memberEpoch: number;
        readonly topics: readonly { readonly name: string; readonly partitionIndexes: readonly number[] }[];
      }[],
      requireStable: boolean,
    ],
    {
      readonly groups: readonly (Coded &
        PartitionAnswers<{ readonly committedOffset: bigint; readonly metadata: string | null }>)[];
    }
  >;
  readonly listOffsets: KafkaApi<
    [
      replica: -1,
      isolation: 0,
      topics: readonly {
        readonly name: string;
        readonly partitions: readonly {
          readonly partitionIndex: number;
          readonly currentLeaderEpoch: number;
          readonly timestamp: bigint;
        }[];
      }[],
    ],
    PartitionAnswers<{ readonly offset: bigint }>
  >;
  readonly fetch: KafkaApi<
    [
      maxWaitMs: number,
      minBytes: number,
      maxBytes: number,
      isolation: 0,
      session: 0,
      sessionEpoch: -1,
      topics: readonly {
        readonly topicId: string;
        readonly partitions: readonly {
          readonly partition: number;
          readonly currentLeaderEpoch: number;
          readonly fetchOffset: bigint;
          readonly lastFetchedEpoch: number;
          readonly partitionMaxBytes: number;
        }[];
      }[],
      forgotten: readonly never[],
      rack: string,
    ],
    FetchAnswer
  >;
  readonly initProducerId: KafkaApi<
    [transactionalId: null, timeoutMs: number, producerId: bigint, epoch: number],
    Coded & { readonly producerId: bigint; readonly producerEpoch: number }
  >;
  readonly produce: KafkaApi<
    [
      acks: -1,
      timeoutMs: number,
      records: ProducedRecord[],
      options: {
        readonly producerId: bigint;
        readonly producerEpoch: number;
        readonly sequences: KafkaSequences;
        readonly compression: "none";
      },
    ],
    ProduceAnswer
  >;
  readonly createTopics: KafkaApi<
    [
      topics: readonly {
        readonly name: string;
        readonly numPartitions: number;
        readonly replicationFactor: number;
        readonly assignments: readonly never[];
        readonly configs: readonly { readonly name: string; readonly value: string }[];
      }[],
      timeoutMs: number,
      validateOnly: false,
    ],
    { readonly topics: readonly (Coded & { readonly name: string; readonly errorMessage: string | null })[] }
  >;
}

/** Loads the package. Raises `PACKAGE_MISSING` without it. */
export async function loadKafka(): Promise<KafkaPackage> {
  const found = await import("@platformatic/kafka").catch((error: unknown) => {
    const message =
      "Kafka needs the package @platformatic/kafka, which cannot be loaded. Install it: npm install @platformatic/kafka";
    throw new ConfigError("PACKAGE_MISSING", message, { cause: error });
  });
  return {
    Connection: found.Connection,
    metadata: found.metadataV12.api,
    findCoordinator: found.findCoordinatorV4.api,
    joinGroup: found.joinGroupV9.api,
    syncGroup: found.syncGroupV5.api,
    heartbeat: found.heartbeatV4.api,
    leaveGroup: found.leaveGroupV5.api,
    offsetCommit: found.offsetCommitV8.api,
    offsetFetch: found.offsetFetchV8.api,
    listOffsets: found.listOffsetsV7.api,
    fetch: found.fetchV12.api,
    initProducerId: found.initProducerIdV4.api,
    produce: found.produceV9.api,
    createTopics: found.createTopicsV7.api,
  } as object as KafkaPackage;
}
