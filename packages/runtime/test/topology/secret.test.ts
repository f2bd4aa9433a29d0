import { inspect } from "node:util";
import fc from "fast-check";
import { pino } from "pino";
import { describe, expect, it } from "vitest";
import {
  describeTopology,
  diffTopologies,
  env,
  presetFor,
  type ResolveInput,
  resolveTopology,
  Secret,
} from "../../src/topology/index.ts";

const password = "hunter2zebra";

/** Every way in which a value reaches a person: the texts it becomes. */
function printed(value: unknown): string[] {
  const lines: string[] = [];
  const log = pino({ level: "trace" }, { write: (line: string) => void lines.push(line) });
  log.info({ value }, "shown");
  if (value instanceof Error) log.error({ err: value, error: value }, "shown");
  const texts = [
    inspect(value, { depth: 20, showHidden: true }),
    String(JSON.stringify(value)),
    `${String(value)}`,
    ...lines,
  ];
  if (value instanceof Error) texts.push(value.message, value.stack ?? "", inspect(value.cause, { depth: 20 }));
  return texts;
}

/** All that a person gets to see of a configuration, accepted or refused. */
function allOutput(input: ResolveInput): string[] {
  try {
    const resolved = resolveTopology(input);
    return [
      ...printed(resolved),
      ...printed([...resolved.sources]),
      ...describeTopology(resolved),
      ...resolved.warnings,
      ...printed(diffTopologies(presetFor(1), resolved.topology)),
    ];
  } catch (error) {
    return printed(error);
  }
}

describe("a Secret", () => {
  it("prints as a reference in every way", () => {
    const secret = env("DB_URL");
    expect(String(secret)).toBe("[secret env:DB_URL]");
    expect(`${secret}`).toBe("[secret env:DB_URL]");
    expect(inspect({ secret })).toBe("{ secret: [secret env:DB_URL] }");
    expect(JSON.stringify({ secret })).toBe('{"secret":"[secret env:DB_URL]"}');
  });

  it("is revealed only when asked, and says what is missing", () => {
    expect(env("DB_URL").reveal({ DB_URL: "x" })).toBe("x");
    for (const environment of [{}, { DB_URL: "" }, { DB_URL: undefined }]) {
      expect(() => env("DB_URL").reveal(environment)).toThrow(
        expect.objectContaining({ code: "SECRET_MISSING", message: expect.stringContaining("DB_URL is not set") }),
      );
    }
    expect(() => new Secret("DB_URL", { index: 1, count: 2 }).reveal({ DB_URL: "postgres://a/x" })).toThrow(
      /fewer than 2/,
    );
  });

  it("is not made from a value passed by mistake, which is not repeated", () => {
    expect(() => env(`postgres://u:${password}@h/x`)).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }));
    try {
      env(`postgres://u:${password}@h/x`);
    } catch (error) {
      expect(printed(error).join("\n")).not.toContain(password);
    }
  });

  it("is understood from JSON and from another copy of this module", async () => {
    const copyUrl = `${new URL("../../src/topology/secret.ts", import.meta.url).href}?copy`;
    const copy = (await import(/* @vite-ignore */ copyUrl)) as typeof import("../../src/topology/secret.ts");
    expect(copy.Secret).not.toBe(Secret);
    for (const leader of [{ env: "DB_URL" }, copy.env("DB_URL")]) {
      const { shards } = resolveTopology({ file: { name: "f", content: { database: { shards: [{ leader }] } } } })
        .topology.database;
      expect(shards).toEqual([{ leader: new Secret("DB_URL") }]);
      expect(typeof shards !== "number" && shards[0]?.leader instanceof Secret).toBe(true);
    }
  });
});

describe("a secret written into the file", () => {
  const inline = [
    `postgres://app:${password}@db1/conduit`,
    `postgres://:${password}@db1/conduit`,
    `postgres://db1/conduit?password=${password}`,
    `postgres://db1/conduit?sslpassword=${password}`,
    `postgres://app:12/${password}@db1/conduit`,
    `postgres://app:${password}#1@db1/conduit`,
  ];

  it.each(inline)("is refused with the key's path and how to write it: form %#", (leader) => {
    const refuse = () =>
      resolveTopology({ file: { name: "rungs.config.ts", content: { database: { shards: [{ leader }] } } } });
    expect(refuse).toThrow(
      'database.shards[0].leader: holds a password or token, and secrets are given by reference only; write `leader: env("DATABASE_URL")`, or in JSON { "env": "DATABASE_URL" }, and set that variable (from file rungs.config.ts).',
    );
  });

  it("is refused for the keys of a bucket too", () => {
    const content = { storage: { url: "s3://files", region: "eu-1", secretAccessKey: password } };
    expect(() => resolveTopology({ file: { name: "f", content } })).toThrow(
      /storage\.secretAccessKey: holds a value.*write `secretAccessKey: env\("S3_SECRET_ACCESS_KEY"\)`/,
    );
  });

  it("is refused for a CDN's token too", () => {
    const content = { cdn: { provider: "cloudflare", zone: "z", token: password } };
    expect(() => resolveTopology({ file: { name: "f", content } })).toThrow(
      /cdn\.token: holds a value.*write `token: env\("CDN_TOKEN"\)`/,
    );
  });
});

describe("no output holds a secret", () => {
  const forms = [
    `postgres://app:${password}@db1/conduit`,
    `postgres://app:12/${password}@db1/conduit`,
    `redis://:${password}@cache`,
    `postgres://db1/x?password=${password}`,
    `app:${password}@db1`,
    `not a url ${password}@`,
  ];
  const isClean = (input: ResolveInput) => !allOutput(input).some((text) => text.includes(password));

  it("from DATABASE_URL, right or wrong, alone or in a list", () => {
    for (const form of [...forms, password, `${password}://h/x`]) {
      for (const value of [form, `postgres://a/x,${form}`, `${form},${form}`]) {
        expect(isClean({ environment: { DATABASE_URL: value } })).toBe(true);
      }
    }
  });

  it("from an address at any place of the file, right or wrong, in any form", () => {
    const places: ((value: string) => unknown)[] = [
      (value) => value,
      (value) => [value],
      (value) => ({ [value]: 1 }),
      (value) => ({ web: value }),
      (value) => ({ web: { [value]: 1 } }),
      (value) => ({ web: { port: value } }),
      (value) => ({ web: { host: value } }),
      (value) => ({ web: { trustProxy: [value] } }),
      (value) => ({ sessions: value }),
      (value) => ({ sessions: { url: value } }),
      (value) => ({ cache: { url: value } }),
      (value) => ({ cache: { url: { env: value } } }),
      (value) => ({ cdn: { provider: "cloudflare", zone: value, token: value } }),
      (value) => ({ database: value }),
      (value) => ({ database: { shards: value } }),
      (value) => ({ database: { shards: [value] } }),
      (value) => ({ database: { shards: [{ leader: value }] } }),
      (value) => ({ database: { shards: [{ leader: "postgres://a/x", followers: [value] }] } }),
      (value) => ({ database: { key: value, splits: [value, value] } }),
      (value) => ({ queue: { url: value } }),
      (value) => ({ storage: value }),
      (value) => ({ storage: { url: value, endpoint: value } }),
      (value) => ({ storage: { accessKeyId: value, secretAccessKey: value } }),
      (value) => ({ regions: { eu: value } }),
      (value) => ({ regions: { [value]: {} } }),
      (value) => ({ regions: { eu: { addresses: [value] } } }),
      (value) => ({ log: { level: value } }),
      (value) => ({ dataDirectory: value.includes("://") ? value : "." }),
    ];
    fc.assert(
      fc.property(fc.constantFrom(...places), fc.constantFrom(...forms), (place, form) => {
        expect(isClean({ file: { name: "rungs.config.json", content: place(form) } })).toBe(true);
      }),
      { numRuns: 600 },
    );
  });

  it("from a bare token where a token or URL belongs", () => {
    for (const content of [
      { cdn: password },
      { cdn: { provider: "cloudflare", zone: "z", token: password } },
      { queue: { url: password } },
      { storage: password },
      { storage: { url: password, endpoint: password } },
      { storage: { url: "s3://files", region: "eu-1", accessKeyId: password, secretAccessKey: password } },
      { sessions: password },
      { cache: { url: [password] } },
      { database: { shards: password } },
    ]) {
      expect(isClean({ file: { name: "f", content } })).toBe(true);
    }
  });

  /** Without `://` nothing tells it from the name of a folder. */
  const isFolder = (name: string, value: string) => /dir/i.test(name) && !value.includes("://");

  it("from any variable or flag that holds an address by mistake", () => {
    for (const value of forms) {
      for (const name of ["PORT", "HOST", "RUNGS_DIR", "RUNGS_SHARDS", "RUNGS_CACHE", "RUNGS_RUNG"]) {
        if (isFolder(name, value)) continue;
        expect(isClean({ environment: { [name]: value } })).toBe(true);
      }
      for (const name of ["port", "host", "dir", "shards", "cache", "rung", "log-level"]) {
        if (isFolder(name, value)) continue;
        expect(isClean({ flags: { [name]: value } })).toBe(true);
      }
    }
  });

  it("and the check sees one: a planted leak is found", () => {
    expect(
      printed({ url: `postgres://u:${password}@h` }).every(
        (text) => text.includes(password) || text === "[object Object]",
      ),
    ).toBe(true);
    expect(printed(new Error("x", { cause: { password } })).some((text) => text.includes(password))).toBe(true);
  });
});
