/** Rules between settings that are right each by itself. */
import { isDeepStrictEqual } from "node:util";
import { webGroup, workersGroup } from "./groups.ts";
import { databaseGroups, topologyOfDatabase } from "./service-databases.ts";
import { shardCount, type Topology } from "./topology.ts";

/** One line a broken rule; empty when all hold. `source` says where the setting at a path came from. */
export function crossProblems(topology: Topology, source: (path: string) => string): string[] {
  return [
    ...splitProblems(topology),
    ...serverProblems(topology),
    ...cdnProblems(topology),
    ...storageProblems(topology),
    ...sessionProblems(topology),
    ...queueProblems(topology),
    ...cacheProblems(topology),
    ...regionProblems(topology),
    ...groupProblems(topology),
    ...serviceDatabaseProblems(topology),
  ].map(([path, message]) => `${path}: ${message} (from ${source(path)}).`);
}

type Problem = readonly [path: string, message: string];

function splitProblems(topology: Topology): Problem[] {
  const { strategy, splits } = topology.database;
  const path = "database.splits";
  if (strategy === "hash") {
    return splits.length === 0 ? [] : [[path, 'has an effect only with database.strategy "range", which is "hash"']];
  }
  const shards = shardCount(topology);
  if (splits.length !== shards - 1) {
    return [[path, `expected ${shards - 1} split point(s) for ${shards} shard(s) by range, got ${splits.length}`]];
  }
  const wrong = splits.findIndex(
    (split, index) => index > 0 && Buffer.compare(Buffer.from(splits[index - 1] ?? ""), Buffer.from(split)) >= 0,
  );
  return wrong === -1
    ? []
    : [
        [
          `${path}[${wrong}]`,
          "expected split points that ascend byte by byte, got one that does not follow the one before",
        ],
      ];
}

function serverProblems({ database: { shards } }: Topology): Problem[] {
  if (typeof shards === "number") return [];
  return shards.flatMap(({ leader, followers = [] }, index): Problem[] => {
    const first = shards.findIndex((other) => isDeepStrictEqual(other.leader, leader));
    const path = `database.shards[${index}]`;
    const repeated = followers.findIndex((one, at) => followers.findIndex((o) => isDeepStrictEqual(o, one)) !== at);
    return [
      ...(first === index
        ? []
        : ([
            [
              `${path}.leader`,
              `names the same server as database.shards[${first}].leader; each shard needs one of its own`,
            ],
          ] as const)),
      ...(repeated === -1
        ? []
        : ([[`${path}.followers[${repeated}]`, "names the same server as one before it in the list"]] as const)),
    ];
  });
}

function cdnProblems({ cdn }: Topology): Problem[] {
  if (cdn === undefined) return [];
  if (cdn.provider === "varnish") {
    if ((cdn.addresses === undefined) === (cdn.token === undefined)) return [];
    return [
      cdn.token === undefined
        ? ["cdn.token", "expected the secret of the purges, because cdn.addresses is set, got nothing"]
        : [
            "cdn.addresses",
            "expected the purge sockets of your Varnish servers, because cdn.token is set, got nothing",
          ],
    ];
  }
  if (cdn.addresses !== undefined) {
    return [["cdn.addresses", `has an effect only with cdn.provider "varnish", which is "${cdn.provider}"`]];
  }
  return (["zone", "token"] as const)
    .filter((name) => cdn[name] === undefined)
    .map((name) => [`cdn.${name}`, `expected a value, because cdn.provider is "${cdn.provider}", got nothing`]);
}

function storageProblems({ storage }: Topology): Problem[] {
  const names = ["region", "accessKeyId", "secretAccessKey"] as const;
  if (storage.url === undefined) {
    const idle = (["endpoint", ...names] as const).filter((name) => storage[name] !== undefined);
    return idle.map((name) => [`storage.${name}`, "has an effect only with storage.url, which is not set"]);
  }
  return names
    .filter((name) => storage[name] === undefined)
    .map((name) => [`storage.${name}`, "expected a value, because storage.url names a bucket, got nothing"]);
}

function sessionProblems({ sessions }: Topology): Problem[] {
  if (sessions.url !== undefined) return [];
  return (["replica", "caFile", "prefix"] as const)
    .filter((name) => sessions[name] !== undefined)
    .map((name) => [`sessions.${name}`, "has an effect only with sessions.url, which is not set"]);
}

function queueProblems({ queue }: Topology): Problem[] {
  if (queue.url !== undefined || queue.caFile === undefined) return [];
  return [["queue.caFile", "has an effect only with queue.url, which is not set"]];
}

function cacheProblems({ cache, sessions }: Topology): Problem[] {
  if (typeof cache.url !== "string" || !cache.url.startsWith("memcached:") || sessions.url !== undefined) return [];
  return [
    ["cache.url", "memcached needs sessions.url, whose Redis tells all processes what is no longer to be served"],
  ];
}

function regionProblems(topology: Topology): Problem[] {
  const { regions = {}, region } = topology;
  const all = Object.values(regions);
  const leaders = all.filter(({ isLeader }) => isLeader === true).length;
  const found: Problem[] = [];
  if (all.length >= 2 && leaders !== 1) {
    found.push(["regions", `expected exactly one region with isLeader: true, got ${leaders}`]);
  }
  const refuseUnknown = (path: string, name: string | undefined) => {
    if (name === undefined || Object.hasOwn(regions, name)) return;
    found.push([path, `"${name}" is no region of regions; set regions.${name}, or leave it out`]);
  };
  refuseUnknown("region", region);
  for (const group of [undefined, ...databaseGroups(topology)]) {
    const { shards } = topologyOfDatabase(topology, group).database;
    if (typeof shards === "number") continue;
    const path = group === undefined ? "database" : `services.${group}.database`;
    for (const [index, shard] of shards.entries()) refuseUnknown(`${path}.shards[${index}].region`, shard.region);
  }
  if (region === undefined) return found;
  for (const [name, { url }] of Object.entries(regions)) {
    if (name === region || url !== undefined) continue;
    const why = `because region is "${region}", and writes whose leader is in ${name} go there`;
    found.push([`regions.${name}.url`, `expected the inner address of the region's balancer, ${why}, got nothing`]);
  }
  return found;
}

/** Of each database that services own: the rules of the app's, and those of its own. */
function serviceDatabaseProblems(topology: Topology): Problem[] {
  const places = [undefined, ...databaseGroups(topology)].map((group) => ({
    group,
    path: group === undefined ? "database" : `services.${group}.database`,
    database: topologyOfDatabase(topology, group).database,
  }));
  return places.slice(1).flatMap(({ group, path, database }, index): Problem[] => {
    if (group === webGroup || group === workersGroup) {
      return [
        [path, `is the app's, since "${group}" has what no other group names; give its services a group of their own`],
      ];
    }
    const alike = [...splitProblems({ ...topology, database }), ...serverProblems({ ...topology, database })];
    const found = alike.map(
      ([at, message]): Problem => [
        `${path}${at.slice("database".length)}`,
        message.replaceAll("database.", `${path}.`),
      ],
    );
    if (topology.queue.url === undefined) {
      found.push([path, "needs queue.url: what is published in one database reaches the others by a broker only"]);
    }
    if (topology.region !== undefined) {
      found.push([path, "is not for several regions in this version, since a broker is in one; leave out region"]);
    }
    const shards = typeof database.shards === "number" ? [] : database.shards;
    for (const [number, { leader, followers = [] }] of shards.entries()) {
      const at = `${path}.shards[${number}]`;
      if (followers.length > 0) {
        found.push([`${at}.followers`, "have no effect: all reads of this database go to its leaders; remove them"]);
      }
      const other = places
        .slice(0, index + 1)
        .find(
          ({ database: { shards: named } }) =>
            typeof named !== "number" && named.some((each) => isDeepStrictEqual(each.leader, leader)),
        );
      if (other !== undefined) found.push([`${at}.leader`, `names a server of ${other.path}; each needs its own`]);
    }
    return found;
  });
}

function groupProblems({ services = {}, group }: Topology): Problem[] {
  const { [webGroup]: web, [workersGroup]: workers, ...own } = services;
  const takenBy = new Map<string, string>();
  const found: Problem[] = [];
  if (web?.processes !== undefined) {
    found.push([`services.${webGroup}.processes`, "is set by web.processes; remove it here"]);
  }
  for (const [name, settings] of [
    [webGroup, web],
    [workersGroup, workers],
  ] as const) {
    if (settings?.services === undefined) continue;
    found.push([
      `services.${name}.services`,
      `has every service without a group of its own; remove the list, or give the group another name than "${name}"`,
    ]);
  }
  if (workers?.url !== undefined) {
    found.push([
      `services.${workersGroup}.url`,
      "has no effect: workers serve nobody; give it to the group that serves",
    ]);
  }
  for (const [name, { services: named = [name] }] of Object.entries(own)) {
    for (const service of named) {
      const first = takenBy.get(service);
      takenBy.set(service, name);
      if (first === undefined) continue;
      const where = first === name ? "twice" : `, which services.${first} has already; a service lives in one group`;
      found.push([`services.${name}`, `names the service "${service}"${first === name ? " " : ""}${where}`]);
    }
  }
  const isThere = group === undefined || group === webGroup || Object.hasOwn(services, group);
  if (!isThere) found.push(["group", `"${group}" is no group of services; set services.${group}, or leave it out`]);
  return found;
}
