/** A member of a cluster as Patroni's configuration, for Patroni 3.0 or newer and PostgreSQL 15 or newer. */
import type { PostgresPrograms } from "./postgres-programs.ts";

/**
 * What a commit waits for. "synchronous": a second server has it on disk, as long as one is there. "strict": refused while none is
 * there. "asynchronous": the leader alone.
 */
export type Replication = "synchronous" | "strict" | "asynchronous";

/** One PostgreSQL server with its Patroni. */
export interface PatroniMember {
  /** E.g. "postgres-0-1": shard 0, first member. */
  readonly name: string;
  /** On loopback. */
  readonly postgresPort: number;
  /** Of Patroni's REST interface, on loopback. */
  readonly patroniPort: number;
  /** The region it is in; absent where there is but one. */
  readonly region?: string;
  /** Where other regions reach the server, on loopback; default its own port. */
  readonly farPort?: number;
}

/** The servers of one shard. */
export interface PatroniCluster {
  readonly shard: number;
  readonly members: readonly PatroniMember[];
  readonly replication: Replication;
  /** Connections that each server takes. */
  readonly connectionsMax: number;
  readonly etcdPorts: readonly number[];
  readonly passwords: PatroniPasswords;
}

/** Generated, one set a stack. */
export interface PatroniPasswords {
  readonly superuser: string;
  readonly replication: string;
  readonly rewind: string;
  /** Of Patroni's REST interface, whose questions need none. */
  readonly rest: string;
  /** By which Patroni writes to etcd. */
  readonly etcd: string;
}

/** Users of a cluster, beside the app's. */
export const clusterUsers = { superuser: "postgres", replication: "replicator", rewind: "rewinder" } as const;
/** Of Patroni's REST interface, and Patroni's own at etcd. */
export const patroniUser = "patroni";
/** Under which Patroni keeps all shards' state in etcd. */
export const etcdPrefix = "/rungs/";

/** Name of the cluster of a shard. */
export const scopeOf = (shard: number) => `shard-${shard}`;

/**
 * What etcd holds for all members of a cluster. The times are the shortest that recovered every time (3/1/1 did not): a leader that is
 * silent for `ttl` seconds is replaced.
 */
export function dynamicSettings({ replication, connectionsMax }: PatroniCluster): Record<string, unknown> {
  return {
    ttl: 5,
    loop_wait: 1,
    retry_timeout: 2,
    maximum_lag_on_failover: 1_048_576,
    synchronous_mode: replication !== "asynchronous",
    synchronous_mode_strict: replication === "strict",
    // A crashed leader is not waited for.
    primary_start_timeout: 0,
    // With etcd away a leader goes on for as long as all members say that they still follow it.
    failsafe_mode: true,
    postgresql: {
      use_pg_rewind: true,
      use_slots: true,
      parameters: {
        max_connections: connectionsMax,
        // Rows move between shards by logical replication.
        wal_level: "logical",
        max_wal_senders: 12,
        max_replication_slots: 12,
        // What a follower that was away a while, or a former leader on its way back, still finds.
        wal_keep_size: "128MB",
        // Without it a former leader could not be rewound unless it had checksums.
        wal_log_hints: "on",
        hot_standby: "on",
        max_worker_processes: 16,
      },
    },
  };
}

/** The whole file. It holds passwords. */
export function patroniConfig(
  cluster: PatroniCluster,
  member: PatroniMember,
  places: { readonly folder: string; readonly programs: PostgresPrograms },
): string {
  const { passwords } = cluster;
  const { folder, programs } = places;
  return `# Server ${member.name} of shard ${cluster.shard}, for Patroni. Written by rungs up at each start: changes here are lost.
# Look at the whole shard with: patronictl -c THIS_FILE list
scope: ${scopeOf(cluster.shard)}
namespace: ${etcdPrefix}
name: ${member.name}

restapi:
  listen: 127.0.0.1:${member.patroniPort}
  connect_address: 127.0.0.1:${member.patroniPort}
  # Questions are free, for the balancer's checks; orders such as a switch-over need this.
  authentication: { username: ${patroniUser}, password: ${quoted(passwords.rest)} }

etcd3:
  hosts: [${cluster.etcdPorts.map((port) => `"127.0.0.1:${port}"`).join(", ")}]
  username: ${patroniUser}
  password: ${quoted(passwords.etcd)}

bootstrap:
  # Settings of the whole shard, kept in etcd from the first start on; rungs up brings them up to date there.
  dcs:
${indented(yamlOf(dynamicSettings(cluster)), 4)}
  # The C locale of UTF-8 sorts the same on every machine; checksums find rotten disks.
  initdb:
${localeFlags(programs.version)
  .map((flag) => `    - ${flag}`)
  .join("\n")}
    - encoding: UTF8
    - data-checksums
    - auth-host: scram-sha-256
    - auth-local: scram-sha-256

postgresql:
  listen: 127.0.0.1:${member.postgresPort}
  connect_address: 127.0.0.1:${member.farPort ?? member.postgresPort}
  data_dir: ${quoted(`${folder}/data`)}
  bin_dir: ${quoted(programs.bin)}
  pgpass: ${quoted(`${folder}/pgpass`)}
  authentication:
    superuser: { username: ${clusterUsers.superuser}, password: ${quoted(passwords.superuser)} }
    replication: { username: ${clusterUsers.replication}, password: ${quoted(passwords.replication)} }
    rewind: { username: ${clusterUsers.rewind}, password: ${quoted(passwords.rewind)} }
  pg_hba:
    - host all all 127.0.0.1/32 scram-sha-256
    - host replication ${clusterUsers.replication} 127.0.0.1/32 scram-sha-256
  parameters:
${member.region === undefined ? "" : `    # By which the app finds out where the leader is.\n    rungs.region: ${quoted(member.region)}\n`}    unix_socket_directories: ""
    password_encryption: scram-sha-256
    shared_buffers: 64MB
    max_wal_size: 1GB
    # A slot whose reader is gone for good must not fill the disk.
    max_slot_wal_keep_size: 2GB
    # A former leader, or a copied follower, starts in half a second in place of four.
    recovery_init_sync_method: syncfs
    wal_retrieve_retry_interval: 500ms
    wal_receiver_status_interval: 1s
    # A connection to a follower that is gone is noticed before people notice.
    wal_sender_timeout: 5s
    wal_receiver_timeout: 5s
    tcp_keepalives_idle: 5
    tcp_keepalives_interval: 2
    tcp_keepalives_count: 3
    # Queries on followers are not broken off by the leader's clean-up.
    hot_standby_feedback: "on"
    logging_collector: "off"
    log_line_prefix: "%m [%p] %q%u@%d "
  # A former leader whose data cannot be rewound is copied anew.
  remove_data_directory_on_rewind_failure: true
  remove_data_directory_on_diverged_timelines: true
  create_replica_methods: [basebackup]
  basebackup:
    - checkpoint: fast

# No hardware watchdog for a process of a user; rungs up ends servers that no longer answer.
watchdog: { mode: "off" }
`;
}

/** From 17 on PostgreSQL has the locale itself, in place of the system's library. */
function localeFlags(version: number): string[] {
  return version >= 17 ? ["locale: C", "locale-provider: builtin", "builtin-locale: C.UTF-8"] : ["locale: C.UTF-8"];
}

/** JSON's texts are YAML's. */
const quoted = (text: string) => JSON.stringify(text);

/** Groups of numbers, switches and texts. */
function yamlOf(value: Readonly<Record<string, unknown>>): string {
  return Object.entries(value)
    .map(([key, item]) =>
      typeof item === "object" && item !== null
        ? `${key}:\n${indented(yamlOf(item as Record<string, unknown>), 2)}`
        : `${key}: ${typeof item === "string" ? quoted(item) : String(item)}`,
    )
    .join("\n");
}

function indented(text: string, spaces: number): string {
  return text.replace(/^/gm, " ".repeat(spaces));
}
