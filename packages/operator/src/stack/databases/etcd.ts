/**
 * etcd of a stack: where the members of all shards agree on who leads. One server on loopback; only Patroni's user may write, and only
 * below one prefix.
 */
import { join } from "node:path";
import { arch } from "node:process";
import { UnavailableError } from "rungs";
import type { Component } from "../component.ts";
import { askJson, type JsonAnswer } from "../process/http-json.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { writePrivate } from "../process/secrets.ts";
import { ownedFolder, type ServerUser } from "../process/server-home.ts";
import { etcdPrefix, patroniUser } from "./patroni-config.ts";

export interface EtcdOptions {
  readonly program: string;
  /** The folder of its own, and who owns it. */
  readonly folder: string;
  readonly user: ServerUser | undefined;
  readonly logFolder: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly ports: { readonly client: number; readonly peer: number };
  readonly passwords: { readonly root: string; readonly patroni: string };
}

/** A component that can put values. */
export interface EtcdComponent extends Component {
  get(key: string, signal: AbortSignal): Promise<string | undefined>;
  put(key: string, value: string, signal: AbortSignal): Promise<void>;
}

const name = "etcd";

/** The file, in YAML. */
export function etcdConfig({ folder, ports }: Pick<EtcdOptions, "folder" | "ports">): string {
  const client = `http://127.0.0.1:${ports.client}`;
  const peer = `http://127.0.0.1:${ports.peer}`;
  return `# etcd, for the fail-over of the databases. Written by rungs up at each start: changes here are lost.
name: ${name}
data-dir: ${JSON.stringify(join(folder, "data"))}
listen-client-urls: ${client}
advertise-client-urls: ${client}
listen-peer-urls: ${peer}
initial-advertise-peer-urls: ${peer}
initial-cluster: ${name}=${peer}
initial-cluster-token: rungs
# One server has nobody to wait for.
heartbeat-interval: 50
election-timeout: 500
# Only the latest state matters.
auto-compaction-mode: periodic
auto-compaction-retention: 1h
# What Patroni speaks; a file turns it off unless it says so.
enable-grpc-gateway: true
logger: zap
log-level: warn
log-outputs: [stderr]
`;
}

/** Makes the component; the files are written when it starts. */
export function etcdComponent(options: EtcdOptions): EtcdComponent {
  const { program, folder, user, logFolder, environment, ports, passwords } = options;
  const configFile = join(folder, "etcd.yml");
  const args = ["--config-file", configFile];
  const ask = (path: string, body: object, signal: AbortSignal, token?: string) =>
    askJson({
      url: `http://127.0.0.1:${ports.client}/v3/${path}`,
      method: "POST",
      body,
      signal,
      ...(token === undefined ? {} : { token }),
    });
  const server = new ManagedProcess({
    name,
    role: "consensus",
    command: program,
    args,
    folder,
    // The second: on ARM etcd starts only when told that this is meant.
    environment: { PATH: environment["PATH"], ...(arch === "x64" ? {} : { ETCD_UNSUPPORTED_ARCH: arch }) },
    port: ports.client,
    user,
    logFolder,
    probe: async (signal) => {
      const { status, content } = await askJson({ url: `http://127.0.0.1:${ports.client}/health`, signal });
      if (status !== 200) throw new Error(`etcd answered ${status}: ${JSON.stringify(content)}`);
      // Its JSON interface comes a moment after its health.
      if ((await ask("kv/range", {}, signal)).status === 404) throw new Error("etcd does not take questions yet.");
    },
  });
  const tokenOf = async (signal: AbortSignal) => {
    const { status, content } = await ask("auth/authenticate", { name: "root", password: passwords.root }, signal);
    return status === 200 ? (content as { token: string }).token : undefined;
  };
  return {
    name,
    role: "consensus",
    needs: [],
    plan: [program, ...args].join(" "),
    async start(signal) {
      await ownedFolder(folder, user);
      await ownedFolder(join(folder, "data"), user);
      await writePrivate(configFile, etcdConfig({ folder, ports }), user);
      await server.start(signal);
      const both = AbortSignal.any([signal, AbortSignal.timeout(10_000)]);
      if ((await tokenOf(both)) === undefined) await close((path, body) => ask(path, body, both), passwords);
    },
    stop: () => server.stop(),
    processes: () => server.report(),
    async get(key, signal) {
      const answer = await ask("kv/range", { key: encoded(key) }, signal, await tokenOf(signal));
      const { kvs = [] } = expectOk(answer) as { kvs?: { value?: string }[] };
      return kvs[0] === undefined ? undefined : Buffer.from(kvs[0].value ?? "", "base64").toString();
    },
    async put(key, value, signal) {
      expectOk(await ask("kv/put", { key: encoded(key), value: encoded(value) }, signal, await tokenOf(signal)));
    },
  };
}

/** Users, their rights and the switch that makes them count. A start that was broken off half way has done the first of it already. */
async function close(
  ask: (path: string, body: object) => Promise<JsonAnswer>,
  { root, patroni }: EtcdOptions["passwords"],
): Promise<void> {
  const perm = { permType: "READWRITE", key: encoded(etcdPrefix), range_end: encoded(endOf(etcdPrefix)) };
  const steps: readonly (readonly [string, object])[] = [
    ["auth/user/add", { name: "root", password: root }],
    ["auth/role/add", { name: "root" }],
    ["auth/user/grant", { user: "root", role: "root" }],
    ["auth/user/add", { name: patroniUser, password: patroni }],
    ["auth/role/add", { name: patroniUser }],
    ["auth/role/grant", { name: patroniUser, perm }],
    ["auth/user/grant", { user: patroniUser, role: patroniUser }],
  ];
  for (const [path, body] of steps) {
    const answer = await ask(path, body);
    if (!/already exists|already granted/.test(JSON.stringify(answer.content))) expectOk(answer);
  }
  expectOk(await ask("auth/enable", {}));
}

/** etcd's range from a prefix to the first key behind all that begin with it. */
function endOf(prefix: string): string {
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}

const encoded = (text: string) => Buffer.from(text).toString("base64");

function expectOk({ status, content }: JsonAnswer): unknown {
  if (status === 200) return content;
  throw new UnavailableError("SERVER_START_FAILED", `etcd answered ${status}: ${JSON.stringify(content)}`, {
    canRetry: true,
  });
}
