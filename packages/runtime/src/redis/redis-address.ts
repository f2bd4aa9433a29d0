/**
 * Addresses of Redis, as one URL:
 *
 * - `redis://user:password@host:6379/0`: one server, or whatever answers for one.
 * - `redis+sentinel://user:password@host:26379,host2:26379/main/0`: the master that these Sentinels name "main". Sentinels
 *   with a login of their own: `?sentinelUsername=...&sentinelPassword=...`.
 * - `redis+cluster://user:password@host:6379,host2:6379`: a Cluster, found through any of these nodes.
 *
 * `rediss` in place of `redis` speaks TLS, to Sentinels too. Special characters in user and password are percent-encoded.
 */
import { type ServerNode, serverAddressReader } from "../kernel/server-address.ts";

/** A login; both parts are secrets. */
export interface RedisLogin {
  readonly username?: string;
  readonly password?: string;
}

/** What an address says. */
export interface RedisAddress {
  readonly kind: "server" | "sentinel" | "cluster";
  /** The server, the Sentinels, or nodes of the Cluster. */
  readonly nodes: readonly [ServerNode, ...ServerNode[]];
  readonly isTls: boolean;
  readonly login: RedisLogin;
  /** Number of the database; a Cluster has only 0. */
  readonly database: number;
  /** Name of the master, for Sentinels. */
  readonly master: string;
  readonly sentinelLogin: RedisLogin;
}

const form = /^(rediss?)(\+sentinel|\+cluster)?:\/\/(?:([^/?#@]*)@)?([^/?#@]+)(\/[^?#]*)?(?:\?([^#]*))?$/;
const { invalid, nodesOf, decoded } = serverAddressReader("Redis");

/** Reads an address. Raises `CONFIG_INVALID`, without repeating any of it. */
export function parseRedisAddress(text: string): RedisAddress {
  const [, scheme, suffix, user, hosts = "", path = "", query = ""] = form.exec(text) ?? [];
  if (scheme === undefined) throw invalid("it is not of a form such as redis://host:6379/0");
  const isSentinel = suffix === "+sentinel";
  const isCluster = suffix === "+cluster";
  const nodes = nodesOf(hosts, isSentinel ? 26_379 : 6_379);
  if (nodes.length > 1 && suffix === undefined) {
    throw invalid("it names several hosts, which needs redis+sentinel:// or redis+cluster://");
  }
  const parts = path.split("/").slice(1).filter(Boolean).map(decoded);
  const master = isSentinel ? parts.shift() : "";
  if (master === undefined)
    throw invalid("an address of Sentinels needs the master's name: redis+sentinel://host/main");
  const database = parts.length === 0 ? 0 : Number(parts[0]);
  if (parts.length > 1 || !Number.isInteger(database) || database < 0 || (isCluster && database !== 0)) {
    throw invalid("what follows the hosts must be the number of a database; a Cluster has only 0");
  }
  return {
    kind: isSentinel ? "sentinel" : isCluster ? "cluster" : "server",
    nodes,
    isTls: scheme === "rediss",
    login: loginOf(user),
    database,
    master,
    sentinelLogin: sentinelLoginOf(query, isSentinel),
  };
}

function loginOf(user: string | undefined): RedisLogin {
  if (user === undefined || user === "") return {};
  const colon = user.indexOf(":");
  const username = decoded(colon === -1 ? user : user.slice(0, colon));
  return {
    ...(username === "" ? {} : { username }),
    ...(colon === -1 ? {} : { password: decoded(user.slice(colon + 1)) }),
  };
}

function sentinelLoginOf(query: string, isSentinel: boolean): RedisLogin {
  const given = new URLSearchParams(query);
  const names = isSentinel ? ["sentinelUsername", "sentinelPassword"] : [];
  for (const name of given.keys()) {
    if (!names.includes(name)) throw invalid("it has a parameter that is not known for this form");
  }
  const username = given.get("sentinelUsername");
  const password = given.get("sentinelPassword");
  return { ...(username === null ? {} : { username }), ...(password === null ? {} : { password }) };
}
