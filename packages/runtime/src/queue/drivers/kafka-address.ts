/**
 * Addresses of Kafka, as one URL: `kafka://user:password@host:9092,host2:9092`, where the hosts are any brokers of one cluster.
 *
 * `kafka+ssl` speaks TLS. With a user it signs in by SASL, over `PLAIN` unless `?mechanism=` says `SCRAM-SHA-256` or
 * `SCRAM-SHA-512`. Special characters in user and password are percent-encoded.
 */
import { ConfigError } from "../../kernel/errors.ts";
import type { KafkaSasl } from "./kafka-load.ts";

/** A TCP address. */
export interface KafkaNode {
  readonly host: string;
  readonly port: number;
}

/** What an address says. */
export interface KafkaAddress {
  readonly nodes: readonly [KafkaNode, ...KafkaNode[]];
  readonly isTls: boolean;
  /** Undefined: it does not sign in. */
  readonly sasl: KafkaSasl | undefined;
}

const form = /^kafka(\+ssl)?:\/\/(?:([^/?#@]*)@)?([^/?#@]+)\/?(?:\?([^#]*))?$/;
const mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] as const;
const nodesMax = 64;
const portDefault = 9_092;

/** Reads an address. Raises `CONFIG_INVALID`, without repeating any of it. */
export function parseKafkaAddress(text: string): KafkaAddress {
  const found = form.exec(text);
  if (found === null) throw invalid("it is not of a form such as kafka://host:9092,host2:9092");
  const [, tls, user, hosts = "", query = ""] = found;
  const [first, ...others] = hosts.split(",").map(nodeOf);
  if (first === undefined || others.length >= nodesMax) throw invalid(`it must name 1 to ${nodesMax} hosts`);
  return { nodes: [first, ...others], isTls: tls !== undefined, sasl: saslOf(user, query) };
}

function nodeOf(text: string): KafkaNode {
  const [, bracketed, plain, digits] = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = digits === undefined ? portDefault : Number(digits);
  if (host === undefined || port < 1 || port > 65_535)
    throw invalid("each host must be a name or an address, with a port or without");
  return { host, port };
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

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid("a % in it is not followed by two hexadecimal digits; write %25 for a %");
  }
}

function invalid(why: string): ConfigError {
  return new ConfigError("CONFIG_INVALID", `The address of Kafka cannot be used: ${why}.`);
}
