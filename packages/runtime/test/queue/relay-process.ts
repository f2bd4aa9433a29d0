/**
 * A process with a relay, for tests that freeze and kill it: `node relay-process.ts '{"database": "postgres://...", ...}'`. Says
 * "active" or "standby" whenever that changes.
 */
import { fileURLToPath } from "node:url";
import { openPostgres } from "../../src/database/drivers/postgres.ts";
import { systemClock } from "../../src/kernel/clock.ts";
import { silentLogger } from "../../src/kernel/log.ts";
import { systemRandom } from "../../src/kernel/random.ts";
import type { Broker } from "../../src/queue/broker.ts";
import { startRelay } from "../../src/queue/drivers/postgres-relay.ts";
import { rabbitmqBroker } from "../../src/queue/drivers/rabbitmq-broker.ts";
import { subscriptions } from "./outbox-shard.ts";

export interface RelayProcessOptions {
  readonly database: string;
  readonly broker: string;
  readonly prefix: string;
  readonly leaseMs: number;
  /** Kills itself as soon as the broker has confirmed a batch. */
  readonly diesConfirmed?: boolean;
}

/** `prefix` keeps a test's messages from those of others. */
export function openBroker(url: string, prefix: string): Broker {
  return rabbitmqBroker({ url, prefix, partitions: 4 });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const options = JSON.parse(process.argv[2] ?? "{}") as RelayProcessOptions;
  // Ends with the test, however that ends.
  process.on("disconnect", () => process.exit());
  const database = openPostgres({ name: "shard 0", address: { url: options.database } });
  const broker = openBroker(options.broker, options.prefix);
  const dying: Broker = {
    name: broker.name,
    declare: (declared) => broker.declare(declared),
    consume: (consumed) => broker.consume(consumed),
    backlog: (asked) => broker.backlog(asked),
    check: () => broker.check(),
    close: () => broker.close(),
    async publish(messages) {
      await broker.publish(messages);
      process.kill(process.pid, "SIGKILL");
    },
  };
  const relay = startRelay({
    shard: { number: 0, database },
    broker: options.diesConfirmed === true ? dying : broker,
    subscriptions,
    leaseMs: options.leaseMs,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
  });
  let wasActive: boolean | undefined;
  setInterval(() => {
    const { isActive } = relay.stats();
    if (isActive !== wasActive) process.send?.(isActive ? "active" : "standby");
    wasActive = isActive;
  }, 20);
}
