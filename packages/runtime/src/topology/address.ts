/** Addresses of servers: which are accepted where, and how they are shown without what they hide. */

/** What an address is for. */
export type AddressKind = "database" | "sessions" | "replica" | "cache" | "queue";

const protocols: Readonly<Record<AddressKind, readonly string[]>> = {
  database: ["postgres", "postgresql"],
  sessions: ["redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"],
  replica: ["redis", "rediss"],
  cache: ["redis", "rediss", "memcached"],
  queue: ["amqp", "amqps", "kafka", "kafka+ssl"],
};

/** Parameters such as `password`, `sslpassword`, `auth_token`; `sslkey` names a file and is no secret. */
const isSecretParameter = (name: string) => /pass|secret|token|credential/i.test(name);

/** What an address of this kind looks like, for messages. */
export function expectedAddress(kind: AddressKind): string {
  return `a URL such as ${protocols[kind][0]}://host${kind === "database" ? "/name" : ""} (${protocols[kind].join(", ")})`;
}

/**
 * What is wrong with an address; undefined when nothing is. Never repeats any of it.
 * `isPasswordAllowed`: true for the values of environment variables, false for what stands in a file.
 */
export function addressProblem(text: string, kind: AddressKind, isPasswordAllowed: boolean): string | undefined {
  if (!isPasswordAllowed && holdsSecret(text))
    return "holds a password or token, and secrets are given by reference only";
  const url = parse(text);
  if (url === undefined || !protocols[kind].includes(url.protocol.slice(0, -1)))
    return `expected ${expectedAddress(kind)}`;
  if (url.host.includes(",")) return "names several hosts in one URL; list whole URLs instead";
  if (url.host === "" && !url.searchParams.has("host")) return `expected ${expectedAddress(kind)} with a host`;
  return undefined;
}

/** True when a text could carry a password: in its user part, in a parameter, or where an @ shows a mis-cut one. */
function holdsSecret(text: string): boolean {
  const url = parse(text);
  if (url === undefined) return text.includes("@");
  // `postgres://u:12/rest@host` parses with host `u`: an @ outside of the user part is a password that was not encoded.
  const isMisCut = `${url.host}${url.pathname}${url.search}${url.hash}`.includes("@");
  return url.password !== "" || isMisCut || [...url.searchParams.keys()].some(isSecretParameter);
}

/** An address without its user, password, parameters and fragment. Texts that are no address are returned as they are. */
export function redactAddress(text: string): string {
  if (!text.includes("://")) return text.includes("@") ? "[hidden]" : text;
  const url = parse(text);
  if (url === undefined || holdsSecret(text)) return "[hidden address]";
  return `${url.protocol}//${url.host}${url.pathname}${url.search === "" ? "" : "?..."}`;
}

/**
 * Sentinels, nodes of a Cluster, those of memcached and those of a message broker are listed in one URL, which no URL parser takes:
 * only the first of them is read here.
 * libpq takes `postgres://user@/name?host=/socket/folder`, whose empty host behind a user none takes either.
 */
function parse(text: string): URL | undefined {
  const whole = text
    .replace(/^((?:rediss?\+\w+|memcached|amqps?|kafka(?:\+ssl)?):\/\/(?:[^/?#@]*@)?[^/?#@,]+),[^/?#@]*/, "$1")
    .replace(/^(\w+:\/\/[^/?#]*@)\//, "$1localhost/");
  return URL.canParse(whole) ? new URL(whole) : undefined;
}
