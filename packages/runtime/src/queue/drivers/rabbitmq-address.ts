/**
 * Addresses of RabbitMQ: `amqp://user:password@host:5672/vhost`. Several nodes of a cluster are listed with commas:
 * `amqp://user:password@host,host2:5673/vhost`; each connection goes to the first that takes it. `amqps` speaks TLS, to servers whose
 * certificates Node trusts (`NODE_EXTRA_CA_CERTS` adds to those). Special characters in user, password and vhost are percent-encoded.
 */
import { ConfigError } from "../../kernel/errors.ts";

/** What an address says; user and password are secrets. */
export interface RabbitmqAddress {
  /** "host:port" of each node. */
  readonly hosts: readonly string[];
  readonly isTls: boolean;
  readonly username: string;
  readonly password: string;
  /** Virtual host; "/" when the address names none. */
  readonly vhost: string;
}

const form = /^(amqps?):\/\/(?:([^/?#@]*)@)?([^/?#@]+)(?:\/([^/?#]*))?$/;
const host = /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/;
const hostsMax = 64;

/** Reads an address. Raises `CONFIG_INVALID`, without repeating any of it. */
export function parseRabbitmqAddress(text: string): RabbitmqAddress {
  const [, scheme, user = "", names = "", vhost = ""] = form.exec(text) ?? [];
  if (scheme === undefined) throw invalid("it is not of a form such as amqp://user:password@host:5672/vhost");
  const isTls = scheme === "amqps";
  const hosts = names.split(",").map((name) => {
    const [, address, port = isTls ? "5671" : "5672"] = host.exec(name) ?? [];
    if (address === undefined || Number(port) < 1 || Number(port) > 65_535) {
      throw invalid("each host must be a name or an address, with a port or without");
    }
    return `${address}:${port}`;
  });
  if (hosts.length > hostsMax) throw invalid(`it must name 1 to ${hostsMax} hosts`);
  const colon = user.indexOf(":");
  if (colon === -1) throw invalid("it names no user and password, and a server refuses its built-in guest from afar");
  return {
    hosts,
    isTls,
    username: decoded(user.slice(0, colon)),
    password: decoded(user.slice(colon + 1)),
    vhost: vhost === "" ? "/" : decoded(vhost),
  };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid("a % in it is not followed by two hexadecimal digits; write %25 for a %");
  }
}

function invalid(why: string): ConfigError {
  return new ConfigError("CONFIG_INVALID", `The address of RabbitMQ cannot be used: ${why}.`);
}
