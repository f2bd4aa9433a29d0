/**
 * One connection to one broker, opened when it is needed and again after each loss.
 *
 * A request is answered within its deadline or the connection is given up: a broker answers in order, so what comes behind a silent
 * request is silent too. Nothing is sent twice from here.
 */
import { isIP } from "node:net";
import type { ServerNode } from "../../kernel/server-address.ts";
import type { KafkaAddress } from "./kafka-address.ts";
import { answerOf, KafkaLinkError } from "./kafka-errors.ts";
import type { KafkaApi, KafkaConnection, KafkaPackage } from "./kafka-load.ts";

/** How links connect. */
export interface LinkOptions {
  readonly kafka: KafkaPackage;
  readonly address: Pick<KafkaAddress, "isTls" | "sasl">;
  /** Certificates that sign the brokers', in PEM; default those Node trusts. */
  readonly ca: string | undefined;
  readonly clientId: string;
  readonly connectMs: number;
}

/** Only a last resort: deadlines are kept here. */
const packageTimeoutMs = 600_000;

export class KafkaLink {
  readonly node: ServerNode;
  private readonly options: LinkOptions;
  private connecting: Promise<KafkaConnection> | undefined;
  private connection: KafkaConnection | undefined;
  private isClosed = false;

  constructor(node: ServerNode, options: LinkOptions) {
    this.node = node;
    this.options = options;
  }

  /** Asks, and gives the answer also where it holds error codes. Raises {@link KafkaLinkError}. */
  async ask<Arguments extends readonly unknown[], Answer>(
    api: KafkaApi<Arguments, Answer>,
    args: Arguments,
    withinMs: number,
  ): Promise<Answer> {
    const { host, port } = this.node;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${withinMs} ms`)), withinMs);
    });
    let used: KafkaConnection | undefined;
    try {
      const asked = this.open().then((connection) => {
        used = connection;
        return api.async(connection, ...args);
      });
      asked.catch(() => {});
      return await Promise.race([asked, late]);
    } catch (error) {
      const answer = answerOf<Answer>(error);
      if (answer !== undefined) return answer;
      this.drop(used);
      throw new KafkaLinkError(`${host}:${port}: ${reasonOf(error)}`, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.isClosed = true;
    this.drop(this.connection);
  }

  private open(): Promise<KafkaConnection> {
    if (this.isClosed) return Promise.reject(new Error("it was closed"));
    this.connecting ??= this.connect();
    return this.connecting;
  }

  private async connect(): Promise<KafkaConnection> {
    const { kafka, address, ca, clientId, connectMs } = this.options;
    const { host, port } = this.node;
    const connection = new kafka.Connection(clientId, {
      connectTimeout: connectMs,
      requestTimeout: packageTimeoutMs,
      maxInflights: 64,
      ...(address.isTls ? { tls: { ca, ...(isIP(host) === 0 ? { servername: host } : {}) } } : {}),
      ...(address.sasl === undefined ? {} : { sasl: address.sasl }),
    });
    this.connection = connection;
    connection.on("error", () => this.drop(connection));
    connection.on("close", () => this.drop(connection));
    await connection.connect(host, port);
    return connection;
  }

  /** Its next request opens another connection. */
  private drop(connection: KafkaConnection | undefined): void {
    // One that is still being made counts as well: whoever waits for it has waited long enough.
    if (connection !== undefined && connection !== this.connection) return;
    const last = this.connection;
    this.connection = undefined;
    this.connecting = undefined;
    last?.socket?.destroy();
  }
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  // The package says only that there was no connection; why is in the cause.
  return error.cause instanceof Error ? reasonOf(error.cause) : error.message;
}
