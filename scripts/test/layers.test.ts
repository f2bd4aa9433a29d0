/** The guard of the layers sees: each rule is broken on purpose in a copy of the tree's shape. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { cruiseLayers, rules } from "../layers.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const src = "packages/runtime/src";

/** For each rule a file, what it imports, and the file imported. */
const planted: Record<string, readonly [file: string, imports: string, target?: string]> = {
  "no-cycles": [`${src}/cache/a.ts`, "./b.ts", `${src}/cache/b.ts`],
  "kernel-imports-nothing": [`${src}/kernel/clock.ts`, "../topology/schema.ts", `${src}/topology/schema.ts`],
  "topology-imports-kernel-only": [`${src}/topology/diff.ts`, "../web/health.ts", `${src}/web/health.ts`],
  "tiers-do-not-import-siblings": [`${src}/session/x.ts`, "../cache/y.ts", `${src}/cache/y.ts`],
  "tiers-do-not-import-the-app": [`${src}/web/x.ts`, "../app.ts", `${src}/app.ts`],
  "policies-do-not-import-drivers": [
    `${src}/database/policy.ts`,
    "./drivers/postgres.ts",
    `${src}/database/drivers/postgres.ts`,
  ],
  "only-drivers-touch-clients": [`${src}/database/client.ts`, "pg"],
  "only-drivers-touch-redis": [`${src}/session/policy.ts`, "../redis/redis.ts", `${src}/redis/redis.ts`],
  "redis-imports-kernel-only": [`${src}/redis/link.ts`, "../live/live.ts", `${src}/live/live.ts`],
  "runtime-imports-no-other-package": [
    `${src}/service.ts`,
    "../../../examples/conduit/src/app.ts",
    "examples/conduit/src/app.ts",
  ],
  "operator-imports-published-entry-points": [
    "packages/operator/src/stack.ts",
    "../../runtime/src/database/sharding/placement.ts",
    `${src}/database/sharding/placement.ts`,
  ],
  "commands-come-last": [
    "packages/operator/src/help.ts",
    "./commands/jobs.ts",
    "packages/operator/src/commands/jobs.ts",
  ],
  "sources-do-not-import-tests": [
    "examples/conduit/src/bad.ts",
    "../test/support.ts",
    "examples/conduit/test/support.ts",
  ],
};

describe("the layers' guard", () => {
  let folder: string;
  let violations: string[];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "rungs-layers-"));
    const write = async (file: string, text: string) => {
      await mkdir(dirname(join(folder, file)), { recursive: true });
      await writeFile(join(folder, file), text);
    };
    for (const [file, imports, target] of Object.values(planted)) {
      await write(file, `import { x } from ${JSON.stringify(imports)};\nexport const y = x;\n`);
      if (target !== undefined) await write(target, "export const x = 1;\n");
    }
    await write(`${src}/cache/b.ts`, 'import { y } from "./a.ts";\nexport const x = y;\n');
    await symlink(join(root, "node_modules"), join(folder, "node_modules"));
    await writeFile(join(folder, "package.json"), '{ "type": "module" }\n');
    ({ violations } = await cruiseLayers(["packages", "examples"], folder));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  it("has a planted violation for every rule", () => {
    expect(Object.keys(planted).sort()).toEqual(rules.map((rule) => rule.name).sort());
  });

  it.each(Object.entries(planted))("reports a breach of %s", (rule, [file]) => {
    expect(violations.filter((line) => line.startsWith(`${rule}: ${file} `))).not.toEqual([]);
  });

  it("sees the real tree and finds it clean", async () => {
    const real = await cruiseLayers(["packages", "examples"], root);
    expect(real.modules).toBeGreaterThan(50);
    expect(real.violations).toEqual([]);
  });
});
