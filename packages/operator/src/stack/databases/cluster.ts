/**
 * The servers of one shard: three PostgreSQL under Patroni, one of which leads.
 *
 * - *ready*: one leads, and the followers that a commit waits for are there; on the first start the app's user and database are made.
 * - *crash of Patroni*: started again by the launcher, it takes its server over. *Crash of a server*: Patroni's business.
 * - *frozen*: a Patroni that has not answered for 3 s, and a server that has not for 5 s, is killed; the rest follows.
 * - *stop*: followers first, so that the leader hands its place to nobody.
 * - *launcher killed*: each Patroni stops its server; a shell that waits on a pipe of the launcher stops what is left.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { UnavailableError } from "rungs";
import type { Component, MemberReport, ProcessReport } from "../component.ts";
import { askJson } from "../process/http-json.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { writePrivate } from "../process/secrets.ts";
import { ownedFolder, type ServerUser } from "../process/server-home.ts";
import { untilFound } from "../process/until.ts";
import { watchSilence } from "../process/watch-silence.ts";
import { prepareAppDatabase } from "./app-database.ts";
import type { EtcdComponent } from "./etcd.ts";
import { isUp, membersOf, statesOf } from "./patroni-api.ts";
import {
  dynamicSettings,
  etcdPrefix,
  type PatroniCluster,
  type PatroniMember,
  patroniConfig,
  scopeOf,
} from "./patroni-config.ts";
import { type PostgresPrograms, versionOfData } from "./postgres-programs.ts";
import { askPostmaster, killPostmaster, postmasterOn, stopPostmaster } from "./postmaster.ts";

export interface ClusterOptions {
  readonly cluster: PatroniCluster;
  readonly etcd: EtcdComponent;
  readonly programs: { readonly patroni: string; readonly postgres: PostgresPrograms };
  /** The shard's own folder, and who owns it. */
  readonly folder: string;
  readonly user: ServerUser | undefined;
  readonly logFolder: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Parts that must be ready before it, beside etcd; default none. */
  readonly needs?: readonly string[];
  /** The member that leads first, where there are no data yet; default: whichever is the fastest. */
  readonly firstLeader?: string | undefined;
  /** Password of the app's user. */
  readonly appPassword: string;
}

/** A component that can say who leads. */
export interface ClusterComponent extends Component {
  readonly cluster: PatroniCluster;
  /** Raises when no Patroni answers. */
  members(signal: AbortSignal): Promise<MemberReport[]>;
  /** Kills servers with their Patronis, all before it returns, and keeps them down until they are restored. */
  loseMembers(names: readonly string[]): Promise<void>;
  /** Starts lost servers again; resolves when their Patronis answer. A former leader is rewound and follows after that. */
  restoreMembers(names: readonly string[], signal: AbortSignal): Promise<void>;
}

const readyWithinMs = 90_000;
const stopPatroniMs = 25_000;
/**
 * Less than the 5 s after which another one is elected: Patroni 3.0, thawed after that, writes itself over the new leader (its
 * `_update_leader` for etcd's version 3 does not compare). Killed, it begins anew and finds what is.
 */
const patroniSilentMsMax = 2_500;
/** Patroni, which finds the server's process there, would not replace a frozen one (its issue 1371). */
const serverSilentMsMax = 5_000;
const answerWithinMs = 1_000;

/** Waits for the launcher's end, gives Patroni the time it is given there, and has its server shut down. */
const guard = `
read -r _ <&3
n=0
while [ $n -lt 200 ]; do
  pid=$(head -n 1 "$1/postmaster.pid" 2>/dev/null)
  if [ -z "$pid" ] && [ $n -gt 30 ]; then exit 0; fi
  if [ -n "$pid" ] && [ $n -gt 85 ]; then
    case "$(ps -o args= -p "$pid" 2>/dev/null)" in
      *"$1"*) if [ $n -gt 150 ]; then kill -QUIT "$pid"; else kill -INT "$pid"; fi ;;
      *) exit 0 ;;
    esac
  fi
  sleep 0.1
  n=$((n + 1))
done
`;

/** Makes the component; the files are written when it starts. */
export function clusterComponent(options: ClusterOptions): ClusterComponent {
  const { cluster, etcd } = options;
  const { shard } = cluster;
  const members = cluster.members.map((member) => new Member(options, member));
  const look = (signal: AbortSignal) => membersOf(cluster.members, signal);
  return {
    cluster,
    name: scopeOf(shard),
    role: "database",
    needs: [etcd.name, ...(options.needs ?? [])],
    plan: `PostgreSQL ${options.programs.postgres.version} under Patroni, ${members.length} servers, in ${options.folder}`,
    members: look,
    async start(signal) {
      await ownedFolder(options.folder, options.user);
      await bringSettings(options, signal);
      const failed = new AbortController();
      const either = AbortSignal.any([signal, failed.signal]);
      const fail = (error: unknown) => {
        failed.abort(error);
        throw error;
      };
      const first = members.find(({ name }) => name === options.firstLeader);
      if (first !== undefined && members.every((member) => !member.hasData())) {
        await first.start(either).catch(fail);
        await untilReady(cluster, either, { followed: false, logs: () => first.tail() }).catch(fail);
      }
      const others = members.filter((member) => !member.isStarted());
      await Promise.all(others.map((member) => member.start(either).catch(fail)));
      const logs = () => members.map((member) => member.tail()).join("\n");
      const leader = await untilReady(cluster, signal, { followed: true, logs });
      await prepareAppDatabase({ cluster, leader, password: options.appPassword });
    },
    async stop() {
      const leader = await look(AbortSignal.timeout(2_000)).then(
        (found) => found.find(({ role }) => role === "leader")?.name,
        () => undefined,
      );
      await Promise.all(members.filter(({ name }) => name !== leader).map((member) => member.stop()));
      await Promise.all(members.map((member) => member.stop()));
    },
    async loseMembers(names) {
      await Promise.all(members.filter(({ name }) => names.includes(name)).map((member) => member.lose()));
    },
    async restoreMembers(names, signal) {
      await Promise.all(members.filter(({ name }) => names.includes(name)).map((member) => member.start(signal)));
    },
    processes: () => members.flatMap((member) => member.processes()),
  };
}

/** What this start wants, in place of what etcd holds from an earlier one. Before the first start there is nothing to replace. */
async function bringSettings({ cluster, etcd }: ClusterOptions, signal: AbortSignal): Promise<void> {
  const key = `${etcdPrefix}${scopeOf(cluster.shard)}/config`;
  const wanted = JSON.stringify(dynamicSettings(cluster));
  const found = await etcd.get(key, signal);
  if (found !== undefined && found !== wanted) await etcd.put(key, wanted, signal);
}

/** Waits for a leader and, where it is to be `followed`, for the followers that its commits need; gives the leader. */
async function untilReady(
  cluster: PatroniCluster,
  signal: AbortSignal,
  { followed, logs }: { readonly followed: boolean; readonly logs: () => string },
): Promise<PatroniMember> {
  const follower = cluster.replication === "asynchronous" ? /replica|standby/ : /sync_standby/;
  let seen: readonly MemberReport[] = [];
  return untilFound({
    withinMs: readyWithinMs,
    everyMs: 100,
    signal,
    async find() {
      seen = await membersOf(cluster.members, signal).catch(() => []);
      const leader = seen.find((member) => member.role === "leader" && isUp(member));
      const isFollowed = !followed || seen.some((member) => follower.test(member.role) && isUp(member));
      return isFollowed ? cluster.members.find(({ name }) => name === leader?.name) : undefined;
    },
    late: () =>
      new UnavailableError(
        "SERVER_START_FAILED",
        `${scopeOf(cluster.shard)} has no leader${followed ? " with a follower" : ""} after ${readyWithinMs / 1_000} s (${statesOf(seen)}). The logs of its servers end with:\n${logs()}`,
        { canRetry: false },
      ),
  });
}

/** One server with its Patroni. */
class Member {
  readonly name: string;
  private readonly options: ClusterOptions;
  private readonly member: PatroniMember;
  private readonly folder: string;
  private readonly data: string;
  private readonly patroni: ManagedProcess;
  private guard: ChildProcess | undefined;
  private watch: { stop(): void } | undefined;
  /** The server seen last, with the times it was another one before. */
  private seen = { pid: 0, startedAtMs: 0, count: 0 };

  constructor(options: ClusterOptions, member: PatroniMember) {
    const { programs, logFolder, environment, user } = options;
    this.options = options;
    this.member = member;
    this.name = member.name;
    this.folder = join(options.folder, member.name);
    this.data = join(this.folder, "data");
    this.patroni = new ManagedProcess({
      name: member.name.replace("postgres", "patroni"),
      role: "failover",
      command: programs.patroni,
      args: [join(this.folder, "patroni.yml")],
      folder: this.folder,
      environment: {
        PATH: environment["PATH"],
        LC_ALL: "C.UTF-8",
        TZ: environment["TZ"],
        HOME: this.folder,
        PYTHONUNBUFFERED: "1",
        // Its answers of the moment; not the files it was made of.
        PYTHONDONTWRITEBYTECODE: "1",
      },
      port: member.patroniPort,
      user,
      logFolder,
      probe: (signal) => this.askPatroni(signal),
      stopTimeoutMs: stopPatroniMs,
      // Once a second each.
      keepLine: (line) => !/INFO: (no action\. I am|Lock owner: )|WARNING: Watchdog not supported/.test(line),
    });
  }

  async start(signal: AbortSignal): Promise<void> {
    const { cluster, programs, user } = this.options;
    await ownedFolder(this.folder, user);
    // Of a launcher that was killed together with its guards.
    await stopPostmaster(this.data);
    const file = patroniConfig(cluster, this.member, { folder: this.folder, programs: programs.postgres });
    await writePrivate(join(this.folder, "patroni.yml"), file, user);
    this.guard = spawn("/bin/sh", ["-c", guard, "rungs", this.data], {
      detached: true,
      stdio: ["ignore", "ignore", "ignore", "pipe"],
    });
    this.guard.on("error", () => this.patroni.log.note("the server has no guard against a killed launcher"));
    this.guard.stdio[3]?.on("error", () => {});
    await this.patroni.start(signal);
    this.watch = watchSilence([
      {
        silentMsMax: patroniSilentMsMax,
        isMeant: () => this.patroni.state === "ready",
        ask: () => this.askPatroni(AbortSignal.timeout(answerWithinMs)),
        end: () => {
          this.patroni.log.note(`Patroni has not answered for ${patroniSilentMsMax} ms; killed`);
          this.patroni.kill();
        },
      },
      {
        silentMsMax: serverSilentMsMax,
        isMeant: () => postmasterOn(this.data) !== undefined,
        ask: () => askPostmaster(this.member.postgresPort, AbortSignal.timeout(answerWithinMs)),
        end: () => {
          this.patroni.log.note(`PostgreSQL has not answered for ${serverSilentMsMax} ms; killed`);
          killPostmaster(this.data);
        },
      },
    ]);
  }

  /** Whether there is a database, or the beginning of one. */
  hasData(): boolean {
    return versionOfData(this.data) !== undefined;
  }

  isStarted(): boolean {
    return this.patroni.state !== "waiting";
  }

  async stop(): Promise<void> {
    this.watch?.stop();
    await this.patroni.stop();
    await stopPostmaster(this.data);
    this.guard?.kill("SIGKILL");
  }

  async lose(): Promise<void> {
    this.watch?.stop();
    const gone = this.patroni.lose();
    // It is nobody's child.
    killPostmaster(this.data);
    this.guard?.kill("SIGKILL");
    await gone;
    // What Patroni was starting at that moment.
    killPostmaster(this.data);
  }

  processes(): ProcessReport[] {
    const server = postmasterOn(this.data);
    if (server !== undefined && server.pid !== this.seen.pid) {
      this.seen = { pid: server.pid, startedAtMs: Date.now(), count: this.seen.count + 1 };
    }
    const { pid, startedAtMs, count } = this.seen;
    const region = this.member.region === undefined ? {} : { region: this.member.region };
    return [
      ...this.patroni.report().map((report) => ({ ...report, ...region })),
      ...(server === undefined
        ? []
        : [
            {
              ...{ name: this.name, ...region, role: "database" as const, pid, port: this.member.postgresPort },
              ...{ state: "ready" as const, startedAtMs, crashes: Math.max(0, count - 1) },
              stopSignal: "SIGINT" as const,
            },
          ]),
    ];
  }

  tail(): string {
    return `${this.patroni.log.path}:\n${this.patroni.log.tail(6)}`;
  }

  private async askPatroni(signal: AbortSignal): Promise<void> {
    // The one question for which it asks its server nothing.
    await askJson({ url: `http://127.0.0.1:${this.member.patroniPort}/liveness`, signal });
  }
}
