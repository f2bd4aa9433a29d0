/** The balancer's model in the words of both drivers: accepted by the programs themselves, and believing only who it should. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Balancer, networksOf } from "../src/stack/front/balancer.ts";
import { nginxConfig } from "../src/stack/front/nginx-config.ts";
import { findProgram } from "../src/stack/process/find-program.ts";
import { haproxyTakes } from "./support/haproxy.ts";
import { type RunningStack, startStackApp } from "./support/stack.ts";

const run = promisify(execFile);
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-balancer-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const balancer: Balancer = {
  listen: { host: "127.0.0.1", port: 1 },
  servers: [1, 2, 3].map((number) => ({ name: `web-${number}`, host: "127.0.0.1", port: 21_000 + number })),
  trusted: [],
  limits: {
    ...{ bodyBytes: 1_048_576, headersMs: 10_000, bodyMs: 30_000, answerMs: 35_000, connectMs: 500 },
    ...{ keepAliveMs: 60_000, upstreamKeepAliveMs: 2_000, headersBytes: 16_384 },
    underWayMax: { signedIn: 768, anonymous: 384, bot: 192 },
  },
  routes: { uploads: [], streams: [], hidden: [] },
};
const routes: Balancer["routes"] = {
  uploads: [{ path: "/api/uploads", bodyLimitBytes: 5_000_000, timeoutMs: 60_000 }],
  streams: ["/api/live"],
  hidden: ["/metrics", "/a.b(c"],
};
const cases: readonly [string, Balancer][] = [
  ["the least", balancer],
  ["all of its parts", { ...balancer, routes, trusted: networksOf(["loopback", "uniquelocal", "203.0.113.7"]) }],
  ["an IPv6 address", { ...balancer, listen: { host: "::1", port: 1 }, routes }],
];

describe("the configuration of", () => {
  it.each(cases)("nginx with %s is one that nginx takes", async (_name, model) => {
    const file = join(folder, "nginx.conf");
    for (const made of ["pages", "logs"]) await mkdir(join(folder, made), { recursive: true });
    const places = { work: folder, pages: join(folder, "pages"), accessLog: join(folder, "logs", "access.log") };
    await writeFile(file, nginxConfig({ ...model, listen: { ...model.listen, port: 21_999 } }, places));
    const { stderr } = await run(findProgram("nginx", process.env) as string, [
      "-t",
      "-e",
      "stderr",
      "-p",
      folder,
      "-c",
      file,
    ]);
    expect(stderr).toContain("test is successful");
    expect(stderr).not.toContain("[warn]");
  });

  it.each(cases)("HAProxy with %s is one that HAProxy takes", async (_name, model) => {
    expect(await haproxyTakes(model, { folder })).toBe("");
  });
});

describe.each(["nginx", "haproxy"])("%s behind a proxy of the operator's", (kind) => {
  let stack: RunningStack;
  beforeAll(async () => {
    const config = join(folder, "rungs.config.json");
    await writeFile(config, JSON.stringify({ web: { trustProxy: ["loopback"] } }));
    stack = await startStackApp(["--rung", "2", "--processes", "1", "--balancer", kind, "--config", config]);
  }, 60_000);
  afterAll(() => stack?.dispose(), 30_000);

  it("believes the proxy about who asks and how, and nobody before it", async () => {
    const ask = async (headers: Record<string, string>) =>
      (await fetch(`${stack.app}/mirror`, { headers })).json() as Promise<{ ip: string; protocol: string }>;
    expect(await ask({})).toMatchObject({ ip: "127.0.0.1", protocol: "http" });
    const seen = await ask({ "x-forwarded-for": "6.6.6.6, 203.0.113.9", "x-forwarded-proto": "https" });
    expect(seen).toMatchObject({ ip: "203.0.113.9", protocol: "https" });
  });
});
