/** Kafka's configuration in a stack, and how its programs are run. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../process/find-program.ts";

/** Ports of loopback: for clients, and for the controller in the same process. */
export interface KafkaPorts {
  readonly kafka: number;
  readonly kafkaController: number;
}

/** Whom the app's processes sign in as. */
export const kafkaUser = "rungs";

/** The file. One node is broker and controller (KRaft); both ask for the password, since everybody on the machine reaches loopback. */
export function kafkaConfig(options: {
  readonly ports: KafkaPorts;
  readonly data: string;
  readonly password: string;
}): string {
  const { ports, data, password } = options;
  const login = `org.apache.kafka.common.security.plain.PlainLoginModule required username="${kafkaUser}" password="${password}" user_${kafkaUser}="${password}";`;
  return `# Kafka for messages. Written by rungs up at each start: changes here are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${ports.kafkaController}
controller.listener.names=CONTROLLER
inter.broker.listener.name=CLIENT
listeners=CLIENT://127.0.0.1:${ports.kafka},CONTROLLER://127.0.0.1:${ports.kafkaController}
advertised.listeners=CLIENT://127.0.0.1:${ports.kafka}
listener.security.protocol.map=CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.mechanism.controller.protocol=PLAIN
listener.name.client.plain.sasl.jaas.config=${login}
listener.name.controller.plain.sasl.jaas.config=${login}
log.dirs=${data}

# One broker has nobody to copy to.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
offsets.topic.num.partitions=8
transaction.state.log.num.partitions=1

# Topics are made by what needs them, and a group is complete when its first member comes.
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0

# Longer than any outage of a handler; offsets as long as messages.
log.retention.hours=168
offsets.retention.minutes=20160

# A small machine.
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=8388608

# After a crash the node waits this long for the one that it remembers, which is itself.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
`;
}

/** Java of JAVA_HOME, else of the PATH; undefined when there is none. */
export function findJava(environment: Readonly<Record<string, string | undefined>>): string | undefined {
  const home = environment["JAVA_HOME"] ?? "";
  if (home === "") return findProgram("java", environment);
  const java = join(home, "bin", "java");
  return existsSync(java) ? java : undefined;
}

/** Arguments of Java for one of the programs in Kafka's release. */
export function kafkaArguments(home: string, main: string, ...args: readonly string[]): string[] {
  // The last, so that it listens on 127.0.0.1 and not on its form of IPv6.
  const settings = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.net.preferIPv4Stack=true"];
  return [...settings, "-cp", join(home, "libs", "*"), main, ...args];
}
