import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  defaultTopology,
  defineTopology,
  describeTopology,
  env,
  type Flags,
  presetFor,
  type ResolveInput,
  resolveTopology,
  Secret,
  shardCount,
} from "../../src/topology/index.ts";

/** The lines of the refusal, without the heading and the dashes. */
function problemsOf(input: ResolveInput): string[] {
  try {
    resolveTopology(input);
  } catch (error) {
    expect(error).toMatchObject({ name: "ConfigError", code: "CONFIG_INVALID" });
    return (error as Error).message
      .split("\n")
      .filter((line) => !/^\d+ problems/.test(line))
      .map((line) => line.replace(/^- /, ""));
  }
  throw new Error("the topology was accepted");
}

const file = (content: unknown) => ({ file: { name: "rungs.config.ts", content } });

describe("resolveTopology", () => {
  it("is rung 1 with every default where nothing is said", () => {
    const { topology, sources, warnings } = resolveTopology({});
    expect(topology).toEqual(defaultTopology);
    expect(new Set(sources.values())).toEqual(new Set(["default"]));
    expect(warnings).toEqual([]);
  });

  it("reads every variable and every flag, and says which won", () => {
    const environment = {
      PORT: "4000",
      HOST: "0.0.0.0",
      RUNGS_DIR: "/data",
      RUNGS_SHARDS: "3",
      RUNGS_CACHE: "off",
      RUNGS_LOG_LEVEL: "debug",
    };
    const fromEnvironment = resolveTopology({ environment });
    expect(fromEnvironment.topology).toMatchObject({
      web: { port: 4000, host: "0.0.0.0" },
      dataDirectory: "/data",
      database: { shards: 3 },
      cache: { isEnabled: false },
      log: { level: "debug" },
    });
    expect(fromEnvironment.sources.get("cache.isEnabled")).toBe("env RUNGS_CACHE");
    const flags = { port: "5000", host: "::1", dir: "other", shards: "2", cache: "on", "log-level": "warn" };
    const fromFlags = resolveTopology({ environment, flags });
    expect(fromFlags.topology).toMatchObject({
      web: { port: 5000, host: "::1" },
      dataDirectory: "other",
      database: { shards: 2 },
      cache: { isEnabled: true },
      log: { level: "warn" },
    });
    expect(fromFlags.sources.get("web.port")).toBe("flag --port");
    expect(fromFlags.sources.get("web.bodyLimitBytes")).toBe("default");
  });

  it("takes an empty variable for an unset one", () => {
    const environment = { PORT: "", DATABASE_URL: " ", RUNGS_RUNG: "" };
    expect(resolveTopology({ environment }).topology).toEqual(defaultTopology);
  });

  it("lets any higher source win over any lower one, for every combination of sources", () => {
    const port = fc.option(fc.integer({ min: 0, max: 65_535 }), { nil: undefined });
    const combination = fc.record({
      flag: port,
      env: port,
      file: port,
      app: port,
      rung: fc.option(fc.constant("2"), { nil: undefined }),
    });
    fc.assert(
      fc.property(combination, (given) => {
        const web = (value: number | undefined) => (value === undefined ? {} : { web: { port: value } });
        const { topology, sources } = resolveTopology({
          ...file({ ...web(given.file) }),
          environment: given.env === undefined ? {} : { PORT: String(given.env) },
          flags: { ...(given.flag === undefined ? {} : { port: String(given.flag) }), rung: given.rung },
          defaults: web(given.app),
        });
        const expected: [number, string][] = [];
        if (given.flag !== undefined) expected.push([given.flag, "flag --port"]);
        if (given.env !== undefined) expected.push([given.env, "env PORT"]);
        if (given.file !== undefined) expected.push([given.file, "file rungs.config.ts"]);
        if (given.app !== undefined) expected.push([given.app, "default"]);
        expected.push([3000, "default"]);
        expect([topology.web.port, sources.get("web.port")]).toEqual(expected[0]);
        expect(topology.web.processes).toBe(given.rung === undefined ? 1 : 4);
        expect(sources.get("web.processes")).toBe(given.rung === undefined ? "default" : "preset rung 2");
      }),
    );
  });

  it("lets the file win over the preset, setting by setting", () => {
    const { topology, sources } = resolveTopology({
      ...file({ web: { processes: 9 } }),
      environment: { RUNGS_RUNG: "3" },
    });
    expect(topology.web).toMatchObject({ processes: 9, balancer: "nginx" });
    expect(sources.get("web.processes")).toBe("file rungs.config.ts");
    expect(sources.get("cdn.provider")).toBe("preset rung 3");
  });

  it("resolves every preset to its rung's topology", () => {
    for (const rung of [1, 2, 3, 4, 5] as const) {
      expect(resolveTopology({ flags: { rung: String(rung) } }).topology).toEqual(presetFor(rung));
    }
  });

  it("replaces a list of servers as a whole", () => {
    const servers = { database: { shards: [{ leader: "postgres://a/x" }, { leader: "postgres://b/x" }] } };
    expect(resolveTopology({ ...file(servers), flags: { shards: "2" } }).topology.database.shards).toBe(2);
    const { topology, sources } = resolveTopology({
      ...file(servers),
      environment: { DATABASE_URL: "postgres://c/x" },
    });
    expect(shardCount(topology)).toBe(1);
    expect(sources.get("database.shards[0].leader")).toBe("env DATABASE_URL");
    expect(sources.has("database.shards[1].leader")).toBe(false);
  });

  it("reads a list of servers from DATABASE_URL, each as a reference to its part", () => {
    const environment = { DATABASE_URL: "postgres://u:a,b@h1/x, postgresql://u:p@h2/x" };
    const { shards } = resolveTopology({ environment }).topology.database;
    if (typeof shards === "number") throw new Error("expected servers");
    const leaders = shards.map(({ leader }) => leader);
    expect(leaders.map(String)).toEqual(["[secret env:DATABASE_URL 1/2]", "[secret env:DATABASE_URL 2/2]"]);
    expect(leaders.map((leader) => leader instanceof Secret && leader.reveal(environment))).toEqual([
      "postgres://u:a,b@h1/x",
      "postgresql://u:p@h2/x",
    ]);
  });

  it("freezes the topology, all the way down", () => {
    const { topology } = resolveTopology(file({ database: { shards: [{ leader: "postgres://a/x" }] } }));
    const { shards } = topology.database;
    for (const part of [
      topology,
      topology.web,
      topology.database,
      shards,
      typeof shards === "number" ? shards : shards[0],
    ]) {
      expect(Object.isFrozen(part)).toBe(true);
    }
  });

  it("accepts whatever defineTopology types, and undefined for a setting left out", () => {
    const input = defineTopology({
      web: { port: undefined, trustProxy: ["10.0.0.0/8", "::1", "loopback"] },
      cdn: { provider: "cloudflare", zone: "z", token: env("CF_TOKEN") },
      database: {
        strategy: "range",
        splits: ["N"],
        shards: [{ leader: "postgres://a/x", followers: [env("B")] }, { leader: env("C") }],
      },
      regions: { eu: { addresses: ["192.0.2.1"], isLeader: true }, constructor: { addresses: ["192.0.2.2"] } },
    });
    const { topology } = resolveTopology(file(input));
    expect(topology.web.port).toBe(3000);
    expect(topology.regions?.["constructor"]?.addresses).toEqual(["192.0.2.2"]);
  });
});

describe("refusals of resolveTopology", () => {
  it("say path, expected, found and source", () => {
    expect(problemsOf({ environment: { PORT: "30000x" } })).toEqual([
      'web.port: expected an integer from 0 to 65535, got "30000x" (from env PORT).',
    ]);
  });

  const refusals: readonly (readonly [name: string, input: ResolveInput, expected: string])[] = [
    [
      "port above the range",
      { flags: { port: "65536" } },
      "web.port: expected an integer from 0 to 65535, got 65536 (from flag --port).",
    ],
    [
      "fraction",
      file({ web: { port: 1.5 } }),
      "web.port: expected an integer from 0 to 65535, got 1.5 (from file rungs.config.ts).",
    ],
    [
      "null",
      file({ web: { port: null } }),
      "web.port: expected an integer from 0 to 65535, got null (from file rungs.config.ts).",
    ],
    [
      "unknown level",
      { environment: { RUNGS_LOG_LEVEL: "loud" } },
      'log.level: expected one of "debug", "info", "warn", "error", "silent", got "loud" (from env RUNGS_LOG_LEVEL).',
    ],
    [
      "cache neither on nor off",
      { flags: { cache: "maybe" } },
      'cache.isEnabled: expected true or false, got "maybe" (from flag --cache).',
    ],
    [
      "unknown rung",
      { environment: { RUNGS_RUNG: "6" } },
      'rung: expected an integer from 1 to 5, got "6" (from env RUNGS_RUNG).',
    ],
    [
      "no shards",
      { flags: { shards: "0" } },
      "database.shards: expected an integer from 1 to 64 (embedded databases) or a list of servers [{ leader, followers }], got 0 (from flag --shards).",
    ],
    [
      "empty list of shards",
      file({ database: { shards: [] } }),
      "database.shards: expected a list of 1 to 1024 servers, got a list of 0 (from file rungs.config.ts).",
    ],
    [
      "mistyped key",
      file({ web: { prot: 1 } }),
      "web.prot: no such setting; did you mean web.port? (from file rungs.config.ts).",
    ],
    [
      "mistyped group",
      file({ databse: {} }),
      "databse: no such setting; did you mean database? (from file rungs.config.ts).",
    ],
    [
      "key of another group",
      file({ port: 1 }),
      "port: no such setting; did you mean web.port? (from file rungs.config.ts).",
    ],
    [
      "unlike any key",
      file({ queue: { flavour: 1 } }),
      "queue.flavour: no such setting; known here: url, caFile, prefix, partitions, outboxBytesMax (from file rungs.config.ts).",
    ],
    [
      "mistyped key in a list",
      file({ database: { shards: [{ leader: "postgres://a/x", folowers: [] }] } }),
      "database.shards[0].folowers: no such setting; did you mean database.shards[0].followers? (from file rungs.config.ts).",
    ],
    [
      "prototype key",
      file(JSON.parse('{"__proto__":{"web":{"port":1}}}')),
      "__proto__: no such setting; known here: dataDirectory, web, sessions, cache, cdn, database, storage, queue, services, group, regions, region, log (from file rungs.config.ts).",
    ],
    [
      "no object",
      file("web"),
      "topology: expected an object with dataDirectory, web, sessions, cache, cdn, database, storage, queue, services, group, regions, region, log, got another text (from file rungs.config.ts).",
    ],
    [
      "missing leader",
      file({ database: { shards: [{}] } }),
      'database.shards[0].leader: expected a URL such as postgres://host/name (postgres, postgresql) or env("NAME"), got nothing (from file rungs.config.ts).',
    ],
    [
      "wrong protocol",
      file({ sessions: { url: "mysql://h" } }),
      "sessions.url: expected a URL such as redis://host (redis, rediss, redis+sentinel, rediss+sentinel, redis+cluster, rediss+cluster), got another text (from file rungs.config.ts).",
    ],
    [
      "no protocol",
      { environment: { DATABASE_URL: "hunter2" } },
      "database.shards[0].leader: expected a URL such as postgres://host/name (postgres, postgresql), got another text (from env DATABASE_URL).",
    ],
    [
      "several hosts in one URL",
      { environment: { DATABASE_URL: "postgres://a,b/x" } },
      "database.shards[0].leader: names several hosts in one URL; list whole URLs instead (from env DATABASE_URL).",
    ],
    [
      "trusting everyone",
      file({ web: { trustProxy: true } }),
      'web.trustProxy: expected a list of at most 64 proxies, such as ["127.0.0.1"], got true (from file rungs.config.ts).',
    ],
    [
      "proxy range too wide",
      file({ web: { trustProxy: ["10.0.0.0/33"] } }),
      'web.trustProxy[0]: expected an IP address, a range such as "10.0.0.0/8", or "loopback", got "10.0.0.0/33" (from file rungs.config.ts).',
    ],
    [
      "region's name",
      file({ regions: { EU: { addresses: ["192.0.2.1"] } } }),
      "regions.EU: expected a region's name of a-z, 0-9 and - (from file rungs.config.ts).",
    ],
    [
      "region's key",
      file({ regions: { eu: { address: ["192.0.2.1"], addresses: ["192.0.2.1"] } } }),
      "regions.eu.address: no such setting; did you mean regions.eu.addresses? (from file rungs.config.ts).",
    ],
    [
      "shards told twice",
      { environment: { DATABASE_URL: "postgres://a/x", RUNGS_SHARDS: "2" } },
      "database.shards: DATABASE_URL lists 1 server(s), RUNGS_SHARDS says 2; unset one of them (from env RUNGS_SHARDS).",
    ],
    [
      "splits without ranges",
      file({ database: { splits: ["N"] } }),
      'database.splits: has an effect only with database.strategy "range", which is "hash" (from file rungs.config.ts).',
    ],
    [
      "too few splits",
      { ...file({ database: { strategy: "range" } }), flags: { shards: "2" } },
      "database.splits: expected 1 split point(s) for 2 shard(s) by range, got 0 (from default).",
    ],
    [
      "splits that descend",
      file({ database: { strategy: "range", shards: 3, splits: ["N", "A"] } }),
      "database.splits[1]: expected split points that ascend byte by byte, got one that does not follow the one before (from file rungs.config.ts).",
    ],
    [
      "one server for two shards",
      file({ database: { shards: [{ leader: env("A") }, { leader: env("A") }] } }),
      "database.shards[1].leader: names the same server as database.shards[0].leader; each shard needs one of its own (from file rungs.config.ts).",
    ],
    [
      "CDN without its token",
      file({ cdn: { provider: "fastly", zone: "z" } }),
      'cdn.token: expected a value, because cdn.provider is "fastly", got nothing (from file rungs.config.ts).',
    ],
    [
      "purge sockets without their secret",
      file({ cdn: { provider: "varnish", addresses: ["http://10.0.0.5:6082"] } }),
      "cdn.token: expected the secret of the purges, because cdn.addresses is set, got nothing (from file rungs.config.ts).",
    ],
    [
      "the secret of purges without their sockets",
      file({ cdn: { provider: "varnish", token: env("A") } }),
      "cdn.addresses: expected the purge sockets of your Varnish servers, because cdn.token is set, got nothing (from file rungs.config.ts).",
    ],
    [
      "purge sockets of another provider",
      file({ cdn: { provider: "cloudflare", zone: "z", token: env("A"), addresses: ["http://10.0.0.5:6082"] } }),
      'cdn.addresses: has an effect only with cdn.provider "varnish", which is "cloudflare" (from file rungs.config.ts).',
    ],
    [
      "a bucket without its keys",
      file({ storage: { url: "s3://files", region: "eu-1", accessKeyId: env("A") } }),
      "storage.secretAccessKey: expected a value, because storage.url names a bucket, got nothing (from file rungs.config.ts).",
    ],
    [
      "a bucket's region without a bucket",
      file({ storage: { region: "eu-1" } }),
      "storage.region: has an effect only with storage.url, which is not set (from file rungs.config.ts).",
    ],
    [
      "a bucket by another protocol",
      file({ storage: { url: "https://files.example.com" } }),
      "storage.url: expected a bucket such as s3://uploads, got another text (from file rungs.config.ts).",
    ],
    [
      "two leading regions",
      file({ regions: { eu: { addresses: ["192.0.2.1"] }, us: { addresses: ["192.0.2.2"] } } }),
      "regions: expected exactly one region with isLeader: true, got 0 (from file rungs.config.ts).",
    ],
  ];

  it.each(refusals)("%s", (_name, input, expected) => {
    expect(problemsOf(input)).toEqual([expected]);
  });

  it("come all at once, also for a source that another one overrides", () => {
    expect(
      problemsOf({
        ...file({ web: { port: "x", hots: 1 }, log: { level: 3 } }),
        environment: { PORT: "y", RUNGS_RUNG: "0" },
        flags: { port: "80", shards: "many" },
      }).sort(),
    ).toEqual([
      "database.shards: expected an integer from 1 to 64 (embedded databases) or a list of servers [{ leader, followers }], got another text (from flag --shards).",
      'log.level: expected one of "debug", "info", "warn", "error", "silent", got 3 (from file rungs.config.ts).',
      'rung: expected an integer from 1 to 5, got "0" (from env RUNGS_RUNG).',
      "web.hots: no such setting; did you mean web.host? (from file rungs.config.ts).",
      'web.port: expected an integer from 0 to 65535, got "x" (from file rungs.config.ts).',
      'web.port: expected an integer from 0 to 65535, got "y" (from env PORT).',
    ]);
  });

  it("hold for any content: a ConfigError or a complete topology, nothing else", () => {
    const names = [
      "web",
      "port",
      "database",
      "shards",
      "leader",
      "cache",
      "local",
      "url",
      "regions",
      "env",
      "log",
      "level",
    ];
    const content = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.jsonValue(),
        fc.dictionary(fc.oneof(fc.constantFrom(...names), fc.string()), tie("value")),
        fc.array(tie("value")),
      ),
    })).value;
    fc.assert(
      fc.property(content, (value) => {
        try {
          const { topology } = resolveTopology(file(value));
          expect(Object.keys(topology)).toEqual(expect.arrayContaining(Object.keys(defaultTopology)));
        } catch (error) {
          expect(error).toMatchObject({ code: "CONFIG_INVALID" });
        }
      }),
      { numRuns: 500 },
    );
  });
});

describe("warnings of resolveTopology", () => {
  it("name a variable that is nearly one of ours, and leave others alone", () => {
    const environment = { RUNGS_SHARD: "3", RUNGS_TEST_POSTGRES: "x", SHARDS: "3" };
    expect(resolveTopology({ environment }).warnings).toEqual([
      "The environment variable RUNGS_SHARD has no effect; did you mean RUNGS_SHARDS?",
    ]);
  });
});

describe("describeTopology", () => {
  it("prints each setting once with its value and source", () => {
    const flags: Flags = { port: "80" };
    const lines = describeTopology(
      resolveTopology({
        ...file({
          database: { shards: [{ leader: "postgres://app@db1:5432/conduit?sslmode=require", followers: [env("F")] }] },
        }),
        flags,
      }),
    );
    const words = lines.map((line) => line.split(/ {2,}/));
    expect(words).toContainEqual(["web.port", "80", "(flag --port)"]);
    expect(words).toContainEqual(["web.trustProxy", "none", "(default)"]);
    expect(words).toContainEqual([
      "database.shards[0].leader",
      "postgres://db1:5432/conduit?...",
      "(file rungs.config.ts)",
    ]);
    expect(words).toContainEqual(["database.shards[0].followers[0]", "[secret env:F]", "(file rungs.config.ts)"]);
    expect(new Set(words.map(([path]) => path)).size).toBe(lines.length);
  });
});

describe("a database address on a socket", () => {
  it.each(["postgres:///app?host=/run/postgresql", "postgres://me@/app?host=/run/postgresql"])(
    "is taken as libpq writes it: %s",
    (url) => {
      const { topology } = resolveTopology({ environment: { DATABASE_URL: url } });
      expect(topology.database.shards).toHaveLength(1);
    },
  );

  it("still needs a host somewhere, and hides a password", () => {
    expect(() => resolveTopology({ environment: { DATABASE_URL: "postgres:///app" } })).toThrow(/with a host/);
    const file = { name: "f", content: { database: { shards: [{ leader: "postgres://me:s3cret@/app?host=/run" }] } } };
    expect(() => resolveTopology({ file })).toThrow(/holds a password/);
    expect(() => resolveTopology({ file })).not.toThrow(/s3cret/);
  });
});
