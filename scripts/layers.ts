/**
 * The layers, enforced: kernel <- topology <- ports and policies <- drivers <- app <- operator <- commands.
 *
 * Exits with 1 on a violation, and also when suspiciously few modules were seen: a guard that passes by finding nothing
 * is no guard (dependency-cruiser sees none without a parser that knows TypeScript).
 */
import { fileURLToPath } from "node:url";
import { cruise, type ICruiseResult } from "dependency-cruiser";

const modulesMin = 50;
const tiers = "session|cache|call|cdn|database|queue|dns|web|monitor|media|storage|idempotency|live";
const clients =
  "pg|redis|ioredis|rabbitmq-client|@platformatic/kafka|fastify|lru-cache|prom-client|undici|@node-rs/argon2|sharp|@fastify/multipart|aws4fetch|file-type";
const src = "^packages/runtime/src";

/** The rules; `severity` is always error. Exported so that a test can plant violations against each. */
export const rules = [
  { name: "no-cycles", from: {}, to: { circular: true } },
  { name: "kernel-imports-nothing", from: { path: `${src}/kernel/` }, to: { path: src, pathNot: `${src}/kernel/` } },
  {
    name: "topology-imports-kernel-only",
    from: { path: `${src}/topology/` },
    to: { path: src, pathNot: `${src}/(topology|kernel)/` },
  },
  {
    name: "tiers-do-not-import-siblings",
    from: { path: `${src}/(${tiers})/` },
    to: { path: `${src}/(${tiers})/`, pathNot: `${src}/$1/` },
  },
  {
    name: "tiers-do-not-import-the-app",
    from: { path: `${src}/[^/]+/`, pathNot: `${src}/app/` },
    to: { path: `${src}/(app/|[^/]+\\.ts$)` },
  },
  {
    name: "policies-do-not-import-drivers",
    from: { path: `${src}/(${tiers})/`, pathNot: "/drivers/|/index\\.ts$" },
    to: { path: `${src}/[^/]+/drivers/` },
  },
  {
    name: "only-drivers-touch-clients",
    from: { path: `${src}/(kernel|topology|${tiers})/`, pathNot: "/drivers/|session/password\\.ts$|monitor/" },
    to: { path: `node_modules/(${clients})/` },
  },
  {
    // The shared way to Redis is a client as well, though it is our own.
    name: "only-drivers-touch-redis",
    from: { path: `${src}/(kernel|topology|${tiers})/`, pathNot: "/drivers/" },
    to: { path: `${src}/redis/` },
  },
  {
    name: "redis-imports-kernel-only",
    from: { path: `${src}/redis/` },
    to: { path: src, pathNot: `${src}/(redis|kernel)/` },
  },
  {
    name: "runtime-imports-no-other-package",
    from: { path: src },
    to: { path: "^(packages/(?!runtime)|examples|benchmarks|scripts)" },
  },
  {
    // By name, never by path: what an entry point does not export is not the operator's business.
    name: "operator-imports-published-entry-points",
    from: { path: "^packages/operator/src" },
    to: { path: "^packages/runtime/", dependencyTypes: ["local"] },
  },
  {
    name: "commands-come-last",
    from: { path: "^packages/operator/src/", pathNot: "^packages/operator/src/(commands/|main\\.ts$)" },
    to: { path: "^packages/operator/src/(commands/|main\\.ts$)" },
  },
  {
    name: "sources-do-not-import-tests",
    from: { path: "/src/", pathNot: "^packages/contract/" },
    to: { path: "/test/|^packages/contract/" },
  },
].map((rule) => ({ ...rule, severity: "error" as const }));

/** Cruises folders of a checkout by the rules; gives a line a violation and how many modules were seen. */
export async function cruiseLayers(
  folders: readonly string[],
  baseDir: string,
): Promise<{ violations: string[]; modules: number }> {
  const { output } = await cruise([...folders], {
    baseDir,
    parser: "swc",
    ruleSet: { forbidden: rules },
    validate: true,
    doNotFollow: { path: "node_modules" },
    enhancedResolveOptions: {
      extensions: [".ts", ".js", ".mjs"],
      exportsFields: ["exports"],
      conditionNames: ["import", "node"],
    },
  } as Parameters<typeof cruise>[1]);
  const { summary, modules } = output as ICruiseResult;
  return {
    violations: summary.violations.map(({ rule, from, to }) => `${rule.name}: ${from} -> ${to}`),
    modules: modules.filter((module) => !module.source.includes("node_modules")).length,
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const { violations, modules } = await cruiseLayers(["packages", "examples"], root);
  for (const violation of violations) process.stdout.write(`${violation}\n`);
  process.stdout.write(`${modules} modules, ${violations.length} violations\n`);
  if (modules < modulesMin) process.stdout.write(`Fewer than ${modulesMin} modules were seen: the guard is blind.\n`);
  process.exitCode = violations.length > 0 || modules < modulesMin ? 1 : 0;
}
