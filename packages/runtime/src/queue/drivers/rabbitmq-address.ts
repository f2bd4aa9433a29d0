/**
 * Addresses of RabbitMQ: `amqp://user:password@host:5672/vhost`. Several nodes of a cluster are listed with commas:
 * `amqp://user:password@host,host2:5673/vhost`; each connection goes to the first that takes it. `amqps` speaks TLS, to servers whose
 * certificates Node trusts (`NODE_EXTRA_CA_CERTS` adds to those). Special characters in user, password and vhost are percent-encoded.
 */
import { serverAddressReader } from "../../kernel/server-address.ts";

/** What an address says; user and password are secrets. */
export interface RabbitmqAddress {
  /** "host:port" of each node. */
  readonly hosts: readonly string[];
  readonly isTls: boolean;
  /** Certificates that sign the servers', in PEM; default those Node trusts. Not part of the address. */
  readonly ca?: string;
  readonly username: string;
  readonly password: string;
  /** Virtual host; "/" when the address names none. */
  readonly vhost: string;
}

const form = /^(amqps?):\/\/(?:([^/?#@]*)@)?([^/?#@]+)(?:\/([^/?#]*))?$/;
const { invalid, nodesOf, decoded } = serverAddressReader("RabbitMQ");

/** Reads an address. Raises `CONFIG_INVALID`, without repeating any of it. */
export function parseRabbitmqAddress(text: string): RabbitmqAddress {
  const [, scheme, user = "", names = "", vhost = ""] = form.exec(text) ?? [];
  if (scheme === undefined) throw invalid("it is not of a form such as amqp://user:password@host:5672/vhost");
  const isTls = scheme === "amqps";
  const nodes = nodesOf(names, isTls ? 5_671 : 5_672);
  const colon = user.indexOf(":");
  if (colon === -1) throw invalid("it names no user and password, and a server refuses its built-in guest from afar");
  return {
    hosts: nodes.map(({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`),
    isTls,
    username: decoded(user.slice(0, colon)),
    password: decoded(user.slice(colon + 1)),
    vhost: vhost === "" ? "/" : decoded(vhost),
  };
}
