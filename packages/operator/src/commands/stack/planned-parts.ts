/** A plan in words and as rows: what `rungs up` says before it starts, and what `--dry-run` shows. */
import { counted } from "../../output.ts";
import { serviceShards } from "../../stack/databases/service-databases.ts";
import { isOnAppPort } from "../../stack/groups/planned-groups.ts";
import type { PlannedRegion } from "../../stack/regions/planned-regions.ts";
import type { BrokerKind, StackPlan } from "../../stack/stack-plan.ts";

/** One part of a stack, for `--dry-run`. */
export interface PlannedPart {
  readonly part: string;
  readonly number: number;
  readonly what: string;
  readonly needs: readonly string[];
  /** Absent where there are no regions, or all of them share it. */
  readonly region?: string;
}

const brokerNames: Readonly<Record<BrokerKind, string>> = { rabbitmq: "RabbitMQ", kafka: "Kafka" };
/** The fewest Sentinels, see `redis-set.ts`. */
const sentinelsMin = 3;

/** In one line: "1 shard of 3 PostgreSQL servers, etcd, HAProxy, Redis, 4 web processes, nginx". */
export function summaryOf(plan: StackPlan): string {
  const { clusters, membersPerShard, embedded, hasRedis, hasCache, hasVarnish, broker, balancer, app } = plan;
  const names = namesOf(plan);
  if (names.length > 0) return summaryOfRegions(plan, names);
  return [
    ...(clusters > 0
      ? [`${counted(clusters, "shard")} of ${membersPerShard} PostgreSQL servers`, "etcd", "HAProxy"]
      : embedded === 0
        ? ["databases of yours"]
        : [counted(embedded, "embedded database")]),
    ...(hasRedis ? ["Redis"] : []),
    ...(hasCache ? ["Redis as cache"] : []),
    ...(broker === undefined ? [] : [brokerNames[broker]]),
    ...app.companions.map(({ name }) => name),
    ...processesIn(plan, undefined),
    ...(balancer === undefined ? [] : [balancer]),
    ...(hasVarnish ? ["Varnish"] : []),
  ].join(", ");
}

function summaryOfRegions(plan: StackPlan, names: readonly string[]): string {
  const { clusters, roundTripMs, hasCache, hasVarnish, balancer, app } = plan;
  const apart = roundTripMs === 0 ? "" : ` ${roundTripMs} ms apart`;
  const shared = ["etcd", "Sentinels", "gdnsd", ...app.companions.map(({ name }) => name)];
  const each = [
    `a PostgreSQL server of ${counted(clusters, "shard")}`,
    "HAProxy",
    "Redis",
    ...(hasCache ? ["Redis as cache"] : []),
    ...processesIn(plan, names[0]),
    ...(balancer === undefined ? [] : [balancer]),
    ...(hasVarnish ? ["Varnish"] : []),
  ];
  return `regions ${names.join(", ")}${apart}, each with ${each.join(", ")}; for all of them ${shared.join(", ")}`;
}

function processesIn({ groups }: StackPlan, region: string | undefined): string[] {
  return groups
    .filter((group) => group.region === region)
    .map(({ group, role, processes }) =>
      role === "worker" ? counted(processes, "worker") : `${processes} ${group} process${processes === 1 ? "" : "es"}`,
    );
}

/** All of its parts, in about the order of their start. */
export function plannedParts(plan: StackPlan): PlannedPart[] {
  const shared = sharedParts(plan);
  const needs = shared.map(({ part }) => part);
  return [...shared, ...plan.regions.flatMap((region) => partsOf(plan, region, needs))];
}

const namesOf = ({ regions }: StackPlan) => regions.flatMap(({ name }) => name ?? []);

function sharedParts(plan: StackPlan): PlannedPart[] {
  const { clusters, membersPerShard, replication, placementOf, roundTripMs, embedded, hasRedis, broker, app } = plan;
  const names = namesOf(plan);
  const part = (name: string, number: number, what: string, needs: readonly string[] = []) => ({
    ...{ part: name, number, what, needs },
  });
  const where = names.length === 0 ? "" : ", one in each region";
  return [
    ...(roundTripMs === 0 ? [] : [part("distance", 1, `${roundTripMs} ms there and back between the regions`)]),
    ...(clusters === 0 ? [] : [part("etcd", 1, "etcd, where the servers agree on who leads")]),
    ...Array.from({ length: clusters }, (_, shard) =>
      part(
        `shard-${shard}`,
        membersPerShard,
        `PostgreSQL under Patroni, ${replication}${where}: ${placementOf(shard)}`,
        roundTripMs === 0 ? ["etcd"] : ["etcd", "distance"],
      ),
    ),
    ...(embedded === 0 ? [] : [part("database", embedded, "embedded PostgreSQL, one a shard")]),
    ...serviceShards(plan.topology).map(({ group, shard }) =>
      part(`${group}-database-${shard}`, 1, `embedded PostgreSQL, for the services of ${group}`),
    ),
    ...(hasRedis && names.length === 0 ? [part("redis", 1, "redis-server, for sessions")] : []),
    ...(names.length === 0
      ? []
      : [
          part("redis", names.length, "redis-server, for sessions, one in each region: a master and its copies"),
          part("sentinel", Math.max(sentinelsMin, names.length), "redis-server, which name another master", ["redis"]),
          part("gdnsd", 1, "gdnsd, which sends users to their region"),
        ]),
    ...(broker === undefined ? [] : [part(broker, 1, `${brokerNames[broker]}, which carries messages to handlers`)]),
    ...app.companions.map(({ name, program }) => part(name, 1, program)),
  ];
}

/** What a region has of its own. */
function partsOf(plan: StackPlan, { name, prefix, host }: PlannedRegion, shared: readonly string[]): PlannedPart[] {
  const { clusters, hasCache, hasVarnish, balancer, app, topology } = plan;
  const groups = plan.groups.filter((group) => group.region === name);
  const { port } = topology.web;
  const listens = `${host}:${port === 0 ? "any free port" : port}`;
  const shards = Array.from({ length: clusters }, (_, shard) => `shard-${shard}`);
  const part = (own: string, number: number, what: string, needs: readonly string[]): PlannedPart => ({
    ...{ part: `${prefix}${own}`, number, what, needs },
    ...(name === undefined ? {} : { region: name }),
  });
  const before = [
    ...(clusters === 0 ? [] : [part("database-router", 1, "HAProxy, to whoever leads", shards)]),
    ...(hasCache ? [part("cache", 1, "redis-server, for the shared cache", [])] : []),
  ];
  const needs = [...shared, ...before.map((each) => each.part)];
  const routed = groups.filter(({ isRouted }) => isRouted).map((group) => group.name);
  return [
    ...before,
    ...groups.map((group) =>
      part(
        group.group,
        group.processes,
        isOnAppPort(group) ? `${app.app} on ${listens}` : `${app.app} in ${group.places} places on loopback`,
        needs,
      ),
    ),
    ...(balancer === undefined
      ? []
      : [part("balancer", 1, `${balancer} on ${hasVarnish ? "loopback" : listens}`, routed)]),
    ...(hasVarnish ? [part("varnish", 1, `Varnish on ${listens}`, [`${prefix}balancer`])] : []),
  ];
}
