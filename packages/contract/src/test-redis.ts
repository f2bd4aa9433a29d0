/**
 * Real Redis servers for tests: alone, as master and replicas under Sentinels, and as a Cluster.
 *
 * Each server has a folder and a free port of its own on loopback.
 */
import { execFile } from "node:child_process";
import { copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { freePorts } from "./support/free-ports.ts";
import { type SupervisedServer, startSupervisedServer } from "./support/supervised-server.ts";
import { until } from "./support/until.ts";

/** Lines of redis.conf. */
export type RedisSettings = Readonly<Record<string, string>>;

/** A running test server. */
export interface TestRedis extends SupervisedServer {
  readonly port: number;
  /** `redis://127.0.0.1:port`, without a login. */
  readonly url: string;
  /** Runs redis-cli against it and gives what it prints. */
  cli(...args: readonly string[]): Promise<string>;
}

const run = promisify(execFile);

const settingsDefault: RedisSettings = {
  bind: "127.0.0.1",
  save: '""',
  appendonly: "no",
  loglevel: "notice",
  "repl-diskless-sync": "yes",
  "repl-diskless-sync-delay": "0",
};

/** Starts a server; `cliFlags` are what redis-cli needs to be let in, such as `["-a", "password"]`. */
export async function startTestRedis(
  options: {
    readonly settings?: RedisSettings;
    readonly cliFlags?: readonly string[];
    readonly isSentinel?: boolean;
  } = {},
): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), "rungs-redis-"));
  const { port } = await freePorts("port");
  // Listening on the plain port is turned off by TLS servers that set "port 0" and "tls-port PORT".
  const settings = {
    port: String(port),
    ...(options.isSentinel === true ? { bind: "127.0.0.1" } : settingsDefault),
    dir: folder,
    ...options.settings,
  };
  const lines = Object.entries(settings).flatMap(([name, value]) =>
    value.split("\n").map((each) => `${name} ${each.replaceAll("PORT", String(port))}`),
  );
  const config = join(folder, "server.conf");
  await writeFile(config, `${lines.join("\n")}\n`, { mode: 0o600 });
  const cli = async (...args: readonly string[]) => {
    const flags = ["-p", String(port), ...(options.cliFlags ?? []), ...args];
    const { stdout } = await run("redis-cli", flags, { timeout: 10_000, env: { PATH: process.env["PATH"] } });
    return stdout.trim();
  };
  const command = ["redis-server", config, ...(options.isSentinel === true ? ["--sentinel"] : [])];
  const server = await startSupervisedServer({
    ...{ name: "Redis", folder, command, readyWithinMs: 15_000 },
    isReady: async () => (await cli("ping")).includes("PONG"),
  });
  return { ...server, port, url: `redis://127.0.0.1:${port}`, cli };
}

/** A master with replicas, watched by Sentinels. */
export interface TestSentinels {
  readonly servers: readonly TestRedis[];
  readonly sentinels: readonly TestRedis[];
  /** For clients: `redis+sentinel://host,host,host/main`. */
  readonly url: string;
  /** The server that the Sentinels name as the master now. */
  master(): Promise<TestRedis>;
  stop(): Promise<void>;
}

/**
 * Starts a master, two replicas and three Sentinels that take a master for dead after `downMs`, default 1,000. With a
 * `password` the servers ask for it, and the Sentinels for "sentinel " and it; default none.
 */
export async function startTestSentinels({
  downMs = 1_000,
  password,
}: {
  readonly downMs?: number;
  readonly password?: string;
} = {}): Promise<TestSentinels> {
  const lock = (text: string) =>
    password === undefined
      ? { settings: {}, cliFlags: [] }
      : { settings: { requirepass: `"${text}"` }, cliFlags: ["-a", text, "--no-auth-warning"] };
  const [own, theirs] = [lock(password ?? ""), lock(`sentinel ${password}`)];
  const fast: RedisSettings = {
    ...{ "repl-ping-replica-period": "1", "repl-timeout": "5", appendonly: "yes" },
    ...own.settings,
    ...(password === undefined ? {} : { masterauth: password }),
  };
  const { cliFlags } = own;
  const first = await startTestRedis({ cliFlags, settings: fast });
  const replicaof = `127.0.0.1 ${first.port}`;
  const replicas = await Promise.all([1, 2].map(() => startTestRedis({ cliFlags, settings: { ...fast, replicaof } })));
  const servers = [first, ...replicas];
  const watch = [
    `monitor main 127.0.0.1 ${first.port} 2`,
    `down-after-milliseconds main ${downMs}`,
    "failover-timeout main 3000",
    "parallel-syncs main 2",
    ...(password === undefined ? [] : [`auth-pass main ${password}`]),
  ];
  const sentinels = await Promise.all(
    [1, 2, 3].map(() =>
      startTestRedis({
        isSentinel: true,
        cliFlags: theirs.cliFlags,
        settings: { ...theirs.settings, sentinel: watch.join("\n") },
      }),
    ),
  );
  await until("the Sentinels know each other and both replicas", async () => {
    const answers = await Promise.all(sentinels.map((sentinel) => sentinel.cli("sentinel", "master", "main")));
    const has = (text: string, name: string, count: number) => new RegExp(`^${name}\\n${count}$`, "m").test(text);
    return answers.every((text) => has(text, "num-slaves", 2) && has(text, "num-other-sentinels", 2));
  });
  return {
    servers,
    sentinels,
    url: `redis+sentinel://${sentinels.map(({ port }) => `127.0.0.1:${port}`).join(",")}/main`,
    async master() {
      const [sentinel] = sentinels as [TestRedis];
      const port = Number((await sentinel.cli("sentinel", "get-master-addr-by-name", "main")).split("\n")[1]);
      const found = servers.find((server) => server.port === port);
      if (found === undefined) throw new Error(`The Sentinels name a master on port ${port}, which is none of ours.`);
      return found;
    },
    stop: async () => void (await Promise.all([...sentinels, ...servers].map((server) => server.stop()))),
  };
}

/** A Cluster of masters, each perhaps with a replica. */
export interface TestCluster {
  readonly servers: readonly TestRedis[];
  readonly url: string;
  stop(): Promise<void>;
}

/** Starts three masters that share the slots, each with `replicas` of its own, default none. */
export async function startTestCluster({ replicas = 0 }: { readonly replicas?: number } = {}): Promise<TestCluster> {
  const settings = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": "1000",
    "cluster-port": "0",
  };
  const servers: TestRedis[] = [];
  for (let index = 0; index < 3 * (1 + replicas); index++) {
    const { busPort } = await freePorts("busPort");
    servers.push(await startTestRedis({ settings: { ...settings, "cluster-port": String(busPort) } }));
  }
  const addresses = servers.map(({ port }) => `127.0.0.1:${port}`);
  const [first] = servers as [TestRedis];
  await run(
    "redis-cli",
    ["--cluster", "create", ...addresses, "--cluster-replicas", String(replicas), "--cluster-yes"],
    {
      timeout: 60_000,
    },
  );
  await until("the Cluster is ready", async () => {
    const infos = await Promise.all(servers.map((server) => server.cli("cluster", "info")));
    return infos.every(
      (info) => info.includes("cluster_state:ok") && info.includes(`cluster_known_nodes:${servers.length}`),
    );
  });
  await until("all nodes know all masters", async () => {
    const views = await Promise.all(servers.map((server) => server.cli("cluster", "slots")));
    return views.every((view) => servers.slice(0, 3).every(({ port }) => view.includes(String(port))));
  });
  return {
    servers,
    url: `redis+cluster://127.0.0.1:${first.port},127.0.0.1:${servers[1]?.port}`,
    stop: async () => void (await Promise.all(servers.map((server) => server.stop()))),
  };
}

/** A certificate authority and a server's certificate for 127.0.0.1, made for one test. */
export async function makeTestCertificates(): Promise<{
  readonly ca: string;
  readonly settings: RedisSettings;
  readonly cliFlags: readonly string[];
  remove(): Promise<void>;
}> {
  const folder = await mkdtemp(join(tmpdir(), "rungs-tls-"));
  const at = (name: string) => join(folder, name);
  const openssl = (...args: string[]) => run("openssl", args, { cwd: folder, timeout: 30_000 });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await openssl(
    "req",
    "-x509",
    ...key,
    "-keyout",
    "ca.key",
    "-out",
    "ca.crt",
    "-days",
    "2",
    "-subj",
    "/CN=test authority",
  );
  await openssl("req", ...key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=127.0.0.1");
  await writeFile(at("names"), "subjectAltName=IP:127.0.0.1\n");
  await openssl(
    ...["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"],
    ...["-out", "server.crt", "-days", "2", "-extfile", "names"],
  );
  await copyFile(at("ca.crt"), at("trusted.crt"));
  return {
    ca: await readFile(at("ca.crt"), "utf8"),
    settings: {
      port: "0",
      "tls-port": "PORT",
      "tls-cert-file": at("server.crt"),
      "tls-key-file": at("server.key"),
      "tls-ca-cert-file": at("ca.crt"),
      "tls-auth-clients": "no",
    },
    cliFlags: ["--tls", "--cacert", at("ca.crt")],
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}
