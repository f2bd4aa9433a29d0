/**
 * Schema of a topology as written: every key optional, unknown keys refused.
 *
 * Messages that begin with "expected" are completed by `explain.ts` with what was found; others stand as they are and
 * must not repeat the value, which may be a secret.
 */
import { isIP } from "node:net";
import { z } from "zod";
import { type AddressKind, addressProblem, expectedAddress } from "./address.ts";
import { asSecret, type Secret } from "./secret.ts";
import { type Address, logLevels } from "./topology.ts";

const int32Max = 2 ** 31 - 1;

function integer(min: number, max: number) {
  const error = `expected an integer from ${min} to ${max}`;
  return z.int({ error }).min(min, { error }).max(max, { error }).optional();
}

function oneOf<const T extends readonly [string, ...string[]]>(names: T) {
  return z.enum(names, { error: `expected one of ${names.map((name) => `"${name}"`).join(", ")}` }).optional();
}

function text(what: string, pattern: RegExp) {
  const error = `expected ${what}`;
  return z.string({ error }).regex(pattern, { error });
}

const bool = z.boolean({ error: "expected true or false" }).optional();

function group<T extends z.core.$ZodShape>(shape: T) {
  return z.strictObject(shape, {
    error: (issue) =>
      issue.code === "unrecognized_keys" ? undefined : `expected an object with ${Object.keys(shape).join(", ")}`,
  });
}

function list<T extends z.ZodType>(item: T, what: string, min: number, max: number) {
  const error = `expected ${what}`;
  return z.array(item, { error }).min(min, { error }).max(max, { error });
}

/** How to give a secret by reference to the setting at this path. */
function referenceHint(path: readonly PropertyKey[], variable: string): string {
  const key = path.findLast((part) => typeof part === "string" && part !== "followers");
  return `write \`${String(key ?? "url")}: env("${variable}")\`, or in JSON { "env": "${variable}" }, and set that variable`;
}

const variableOf: Readonly<Record<AddressKind, string>> = {
  database: "DATABASE_URL",
  sessions: "REDIS_URL",
  replica: "REDIS_REPLICA_URL",
  cache: "CACHE_URL",
  queue: "QUEUE_URL",
};

/** Settings that are not called `url`. */
const nameOf: Readonly<Partial<Record<AddressKind, string>>> = { database: "leader", replica: "replica" };

function address(kind: AddressKind) {
  return z.unknown().transform((value, context): Address => {
    const secret = asSecret(value);
    if (secret !== undefined) return secret;
    const problem =
      typeof value === "string"
        ? addressProblem(value, kind, false)
        : `expected ${expectedAddress(kind)} or env("NAME")`;
    if (problem === undefined) return value as string;
    const hint = problem.startsWith("expected") ? "" : `; ${referenceHint([nameOf[kind] ?? "url"], variableOf[kind])}`;
    context.issues.push({ code: "custom", message: `${problem}${hint}`, input: value });
    return z.NEVER;
  });
}

/** A value that may only be given by reference; `name` and `variable` are those of the hint. */
function reference(name: string, variable: string) {
  return z.unknown().transform((value, context): Secret => {
    const secret = asSecret(value);
    if (secret !== undefined) return secret;
    const message = `holds a value, and secrets are given by reference only; ${referenceHint([name], variable)}`;
    context.issues.push({ code: "custom", message, input: value });
    return z.NEVER;
  });
}

const regionName = text("a region's name of a-z, 0-9 and -", /^[a-z][a-z0-9-]{0,30}$/);
const baseAddress = text("a base address, such as http://10.0.0.5:8081", /^https?:\/\/[A-Za-z0-9.:[\]-]{1,253}\/?$/);

const shardServers = group({
  leader: address("database"),
  followers: list(address("database"), "a list of at most 16 URLs", 0, 16).optional(),
  region: regionName.optional(),
});
const shardList = list(shardServers, "a list of 1 to 1024 servers", 1, 1_024);
const shardNumber = z.int().min(1).max(64);

/** Two schemas by the kind of value, so that a mistake in a list is told by its own path and not as "no match". */
const shards = z.unknown().transform((value, context) => {
  const issues = (found: readonly z.core.$ZodIssue[]) => {
    for (const issue of found) context.issues.push({ ...issue, input: value } as z.core.$ZodRawIssue);
    return z.NEVER;
  };
  if (Array.isArray(value)) {
    const parsed = shardList.safeParse(value);
    return parsed.success ? parsed.data : issues(parsed.error.issues);
  }
  const parsed = shardNumber.safeParse(value);
  if (parsed.success) return parsed.data;
  const message = "expected an integer from 1 to 64 (embedded databases) or a list of servers [{ leader, followers }]";
  context.issues.push({ code: "custom", message, input: value });
  return z.NEVER;
});

const proxyNames = ["loopback", "linklocal", "uniquelocal"];

/** An IP address, an address range in CIDR notation, or a name that Fastify knows for a range. */
function isProxy(proxy: string): boolean {
  const [ip = "", bits, ...rest] = proxy.split("/");
  const version = isIP(ip);
  if (proxyNames.includes(proxy)) return true;
  return (
    version !== 0 &&
    rest.length === 0 &&
    (bits === undefined || (/^\d+$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128)))
  );
}

const proxyError = 'expected an IP address, a range such as "10.0.0.0/8", or "loopback"';
const proxy = z.string({ error: proxyError }).refine(isProxy, { error: proxyError });

const region = group({
  addresses: list(text("an IP address or host name", /^[A-Za-z0-9.:-]{1,253}$/), "a list of 1 to 64 addresses", 1, 64),
  isLeader: bool,
  url: baseAddress.optional(),
});

const strategy = oneOf(["hash", "range"]);
const splits = list(text("a text", /^[^\0]{1,1024}$/), "a list of at most 1023 texts", 0, 1_023).optional();

const serviceGroup = group({
  processes: integer(1, 256),
  services: list(
    text("the name of a service, such as payments", /^[a-z][a-z0-9_]{0,29}$/),
    "a list of 1 to 256 names of services",
    1,
    256,
  ).optional(),
  url: baseAddress.optional(),
  database: group({ shards, strategy, splits }).optional(),
});
// Processes and their logs are called by it and a number: it must not look like such a name itself.
const groupName = text("a group's name of a-z, 0-9, _ and -", /^(?!.*-\d+$)[a-z][a-z0-9_-]{0,29}$/);

/** Schema of a topology as written; its output holds secrets as references only. */
export const topologySchema = group({
  // An address in the folder's place would be created on disk and printed, password and all.
  dataDirectory: text("the path of a folder", /^(?!.*:\/\/)[^\0]{1,4096}$/).optional(),
  web: group({
    host: text("an IP address or host name to listen on", /^[A-Za-z0-9.:%_-]{1,253}$/).optional(),
    port: integer(0, 65_535),
    processes: integer(1, 256),
    balancer: oneOf(["nginx", "haproxy"]),
    bodyLimitBytes: integer(1, int32Max),
    requestTimeoutMs: integer(1, int32Max),
    loopLatenessMsMax: integer(0, 60_000),
    trustProxy: list(proxy, 'a list of at most 64 proxies, such as ["127.0.0.1"]', 0, 64).optional(),
    limits: group({
      addressPerMinute: integer(1, 10_000_000),
      userPerMinute: integer(1, 10_000_000),
    }).optional(),
  }).optional(),
  sessions: group({
    url: address("sessions").optional(),
    replica: address("replica").optional(),
    caFile: text("the path of a file", /^(?!.*:\/\/)[^\0]{1,4096}$/).optional(),
    prefix: text('1 to 64 characters such as "shop:"', /^[A-Za-z0-9._:-]{1,64}$/).optional(),
  }).optional(),
  cache: group({
    isEnabled: bool,
    url: address("cache").optional(),
    local: group({ entries: integer(1, int32Max), bytes: integer(1_024, Number.MAX_SAFE_INTEGER) }).optional(),
  }).optional(),
  cdn: group({
    provider: z.enum(["varnish", "cloudflare", "fastly"], {
      error: 'expected one of "varnish", "cloudflare", "fastly"',
    }),
    zone: text("the provider's id of the site", /^[A-Za-z0-9._-]{1,253}$/).optional(),
    token: reference("token", "CDN_TOKEN").optional(),
    addresses: list(
      text("the address of a purge socket, such as http://10.0.0.5:6082", /^https?:\/\/[A-Za-z0-9.:[\]-]{1,253}\/?$/),
      "a list of 1 to 64 addresses",
      1,
      64,
    ).optional(),
  }).optional(),
  database: group({
    key: text("the name of a column", /^[a-z_][a-z0-9_]{0,62}$/).optional(),
    strategy,
    splits,
    shards: shards.optional(),
    replicas: group({ lagMsMax: integer(1, 30_000), waitMsMax: integer(0, 10_000) }).optional(),
    pool: group({ connectionsMax: integer(1, 10_000), acquireTimeoutMs: integer(1, int32Max) }).optional(),
    statementTimeoutMs: integer(0, int32Max),
    preparedStatements: bool,
  }).optional(),
  storage: group({
    url: text("a bucket such as s3://uploads", /^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\/?$/).optional(),
    region: text("a region such as eu-central-1", /^[a-z0-9-]{1,63}$/).optional(),
    endpoint: text(
      "the address of an S3 server, such as https://s3.example.com",
      /^https?:\/\/[A-Za-z0-9.:[\]-]{1,253}(?:\/[A-Za-z0-9._/-]{0,200})?$/,
    ).optional(),
    accessKeyId: reference("accessKeyId", "S3_ACCESS_KEY_ID").optional(),
    secretAccessKey: reference("secretAccessKey", "S3_SECRET_ACCESS_KEY").optional(),
  }).optional(),
  queue: group({
    url: address("queue").optional(),
    caFile: text("the path of a file", /^(?!.*:\/\/)[^\0]{1,4096}$/).optional(),
    prefix: text('1 to 60 characters such as "shop"', /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,59}$/).optional(),
    partitions: integer(1, 256),
    outboxBytesMax: integer(1024 * 1024, Number.MAX_SAFE_INTEGER),
  }).optional(),
  services: z.record(groupName, serviceGroup, { error: "expected groups of processes by name" }).optional(),
  group: groupName.optional(),
  regions: z.record(regionName, region, { error: "expected regions by name" }).optional(),
  region: regionName.optional(),
  log: group({ level: oneOf(logLevels), isPretty: bool }).optional(),
});

/** The names allowed in each group, by the group's path ("" at the top; a list's items under `[]`, a record's under `{}`). */
export const knownNames: ReadonlyMap<string, readonly string[]> = new Map([
  ...namesOf(topologySchema, ""),
  ...namesOf(shardServers, "database.shards[]"),
  ...namesOf(region, "regions{}"),
  ...namesOf(serviceGroup, "services{}"),
  ...namesOf(shardServers, "services{}.database.shards[]"),
]);

function namesOf(schema: z.core.$ZodType, path: string): [string, readonly string[]][] {
  if (schema instanceof z.ZodOptional) return namesOf(schema.unwrap(), path);
  if (!(schema instanceof z.ZodObject)) return [];
  const shape = schema.shape as Record<string, z.core.$ZodType>;
  const below = Object.entries(shape).flatMap(([name, item]) => namesOf(item, path === "" ? name : `${path}.${name}`));
  return [[path, Object.keys(shape)], ...below];
}
