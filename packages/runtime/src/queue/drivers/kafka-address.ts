/**
 * Addresses of Kafka, as one URL: `kafka://user:password@host:9092,host2:9092`, where the hosts are any brokers of one cluster.
 *
 * `kafka+ssl` speaks TLS. With a user it signs in by SASL, over `PLAIN` unless `?mechanism=` says `SCRAM-SHA-256` or
 * `SCRAM-SHA-512`. Special characters in user and password are percent-encoded.
 */
import { type ServerNode, serverAddressReader } from "../../kernel/server-address.ts";
import type { KafkaSasl } from "./kafka-load.ts";

/** What an address says. */
export interface KafkaAddress {
  readonly nodes: readonly [ServerNode, ...ServerNode[]];
  readonly isTls: boolean;
  /** Undefined: it does not sign in. */
  readonly sasl: KafkaSasl | undefined;
}

const form = /^kafka(\+ssl)?:\/\/(?:([^/?#@]*)@)?([^/?#@]+)\/?(?:\?([^#]*))?$/;
const mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] as const;
const portDefault = 9_092;
const { invalid, nodesOf, decoded } = serverAddressReader("Kafka");

/** Reads an address. Raises `CONFIG_INVALID`, without repeating any of it. */
export function parseKafkaAddress(text: string): KafkaAddress {
  const found = form.exec(text);
  if (found === null) throw invalid("it is not of a form such as kafka://host:9092,host2:9092");
  const [, tls, user, hosts = "", query = ""] = found;
  return { nodes: nodesOf(hosts, portDefault), isTls: tls !== undefined, sasl: saslOf(user, query) };
}

function saslOf(user: string | undefined, query: string): KafkaSasl | undefined {
  const given = new URLSearchParams(query);
  for (const name of given.keys()) if (name !== "mechanism") throw invalid("it has a parameter that is not known");
  const wanted = given.get("mechanism") ?? "PLAIN";
  const mechanism = mechanisms.find((each) => each === wanted.toUpperCase());
  if (mechanism === undefined) throw invalid(`its mechanism must be one of ${mechanisms.join(", ")}`);
  if (user === undefined || user === "") return undefined;
  const colon = user.indexOf(":");
  if (colon === -1) throw invalid("it names a user without a password");
  return { mechanism, username: decoded(user.slice(0, colon)), password: decoded(user.slice(colon + 1)) };
}
