/** Files of Redis and its Sentinels over several regions, for Redis 6.2 or newer. */

/** What the Sentinels call the master. */
export const masterName = "main";

/**
 * How long a master may be silent. With 1 s a fail-over took 2.2 to 2.4 s here; a second more keeps a busy machine from moving it for
 * nothing.
 */
export const silentMsMax = 2_000;

/** Of a server: sessions are data, so never evicted, and on disk every second. */
export function replicaConfig(options: {
  readonly port: number;
  readonly password: string;
  readonly data: string;
  /** Of the master that it copies; absent: it is the master. */
  readonly masterPort: number | undefined;
}): string {
  const { port, password, data, masterPort } = options;
  return `# Redis for sessions, one of several. Written by rungs up at each start: changes here are lost.
bind 127.0.0.1
port ${port}
protected-mode yes
requirepass ${password}
# Any of them may become the master, and copy another one.
masterauth ${password}
daemonize no
dir ${JSON.stringify(data)}

# A session that was given out must not vanish: a full memory refuses new ones instead, and a restart finds all of them, but for
# the last second.
maxmemory 256mb
maxmemory-policy noeviction
appendonly yes
appendfsync everysec
save ""
tcp-keepalive 60
timeout 0
loglevel notice

# A replica answers reads, and refuses writes. One that is alone serves on: its region must not stop for that.
replica-read-only yes
replica-serve-stale-data yes
repl-diskless-sync yes
repl-diskless-sync-delay 0
repl-ping-replica-period 1
repl-timeout 10
# What a region that was away for a while is sent in place of everything.
repl-backlog-size 16mb
${masterPort === undefined ? "" : `replicaof 127.0.0.1 ${masterPort}\n`}`;
}

/** Of a Sentinel, which writes into it what it learns. */
export function sentinelConfig(options: {
  readonly port: number;
  readonly data: string;
  readonly masterPort: number;
  readonly password: string;
  readonly sentinelPassword: string;
  readonly quorum: number;
  /** 40 hexadecimal digits, the same at each start: the others take it for the one that they know. */
  readonly id: string;
}): string {
  const { port, data, masterPort, password, sentinelPassword, quorum, id } = options;
  return `# A Sentinel, which names another master when the old one is gone. Written by rungs up at each start, and by itself.
bind 127.0.0.1
port ${port}
protected-mode yes
requirepass ${sentinelPassword}
daemonize no
dir ${JSON.stringify(data)}
sentinel myid ${id}
sentinel monitor ${masterName} 127.0.0.1 ${masterPort} ${quorum}
sentinel auth-pass ${masterName} ${password}
sentinel down-after-milliseconds ${masterName} ${silentMsMax}
sentinel failover-timeout ${masterName} 6000
sentinel parallel-syncs ${masterName} 8
`;
}

/** Port of the master by the newest of the Sentinels' files; undefined when none names one. */
export function lastMasterPort(files: readonly string[]): number | undefined {
  const words = files.flatMap((text) => {
    const port = new RegExp(`^sentinel monitor ${masterName} \\S+ (\\d+) `, "m").exec(text)?.[1];
    const epoch = new RegExp(`^sentinel config-epoch ${masterName} (\\d+)`, "m").exec(text)?.[1] ?? "0";
    return port === undefined ? [] : [{ port: Number(port), epoch: Number(epoch) }];
  });
  return words.sort((one, other) => other.epoch - one.epoch)[0]?.port;
}
