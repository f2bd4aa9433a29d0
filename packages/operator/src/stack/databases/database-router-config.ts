/** The way to leaders and followers of all shards as HAProxy's configuration, for version 2.6 or newer. */
import type { PatroniMember } from "./patroni-config.ts";

/** One shard behind the router. */
export interface RoutedShard {
  /** E.g. "shard-0". */
  readonly name: string;
  readonly members: readonly PatroniMember[];
  /** On loopback: whoever leads. */
  readonly leaderPort: number;
  /** On loopback: the followers by turns, and the leader while there is none. */
  readonly followersPort: number;
  readonly connectionsMax: number;
  /** The router's own region, whose server is asked first; default: there is but one. */
  readonly region?: string | undefined;
}

/** Where the router of a shard reaches a server: of another region, over the distance. */
const portOf = ({ postgresPort, farPort, region }: PatroniMember, shard: RoutedShard) =>
  region === shard.region ? postgresPort : (farPort ?? postgresPort);

/** The whole file. `socket`: unix socket of the runtime interface; `state`: file of what is known of servers before they are checked. */
export function databaseRouterConfig(
  shards: readonly RoutedShard[],
  places: { readonly socket: string; readonly state: string },
): string {
  const connections = shards.reduce((sum, { connectionsMax }) => sum + 2 * connectionsMax, 0);
  return `# The way to the databases: who leads is asked of Patroni. Written by rungs up at each start: changes here are lost.
# Test it with: haproxy -c -f THIS_FILE

global
    maxconn ${connections + 100}
    stats socket ${places.socket} mode 600 level admin
    hard-stop-after 2s
    # No server is taken for good before its first check: a follower would be written to.
    server-state-file ${JSON.stringify(places.state)}
    # Who leads and who does not, and no line for each connection.
    log stdout format raw local0 notice

defaults
    mode tcp
    log global
    timeout connect 1s
    # Pooled connections are idle for long; a peer that is gone is noticed by keep-alive.
    timeout client 24h
    timeout server 24h
    option clitcpka
    clitcpka-idle 10s
    clitcpka-intvl 3s
    clitcpka-cnt 3
    option srvtcpka
    srvtcpka-idle 10s
    srvtcpka-intvl 3s
    srvtcpka-cnt 3
    retries 1
    load-server-state-from-file global
    # A busy Patroni is slow to answer and leads all the same: a frozen one is found after two checks, about 4 s.
    timeout check 1500ms

${shards.map(shardPart).join("\n\n")}
`;
}

/** Where nothing has been checked yet, everything is down. HAProxy's format of "show servers state", version 1. */
export function databaseRouterState(shards: readonly RoutedShard[]): string {
  const head =
    "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port";
  const rows = shards.flatMap((routed, shard) =>
    ["leader", "followers"].flatMap((role, which) =>
      routed.members.map(
        (member, index) =>
          `${shard * 2 + which + 2} ${routed.name}-${role} ${index + 1} ${member.name} 127.0.0.1 0 0 1 1 0 6 1 0 6 0 0 0 - ${portOf(member, routed)} - 0 ${member.patroniPort} - - 0`,
      ),
    ),
  );
  return `1\n${head}\n${rows.join("\n")}\n`;
}

function shardPart(shard: RoutedShard): string {
  const { name, members, leaderPort, connectionsMax } = shard;
  const servers = members.map(
    (member) => `    server ${member.name} 127.0.0.1:${portOf(member, shard)} check port ${member.patroniPort}`,
  );
  return `# Whoever leads. Connections to one that does not any more are ended at once: it must take no further write.
listen ${name}-leader
    bind 127.0.0.1:${leaderPort}
    maxconn ${connectionsMax}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 500ms fastinter 250ms downinter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
${servers.join("\n")}

${shard.region === undefined ? followersPart(shard, servers) : nearestPart(shard, servers)}`;
}

function followersPart({ name, followersPort, connectionsMax }: RoutedShard, servers: readonly string[]): string {
  return `# Followers that are no more than 1 MB behind; the leader only while there is none. For tools: the app chooses among them itself.
listen ${name}-followers
    bind 127.0.0.1:${followersPort}
    maxconn ${connectionsMax}
    balance leastconn
    option httpchk OPTIONS /replica?lag=1MB
    http-check expect status 200
    default-server inter 2s fastinter 500ms downinter 2s fall 2 rise 1 on-marked-down shutdown-sessions
${servers.join("\n")}
${servers.map((line) => `${line.replace("server ", "server leader-")} backup track ${name}-leader/${line.trim().split(" ")[1]}`.replace(/ check port \d+/, "")).join("\n")}`;
}

/** With one server a region the nearest is worth more than a follower. */
function nearestPart(
  { name, members, region, followersPort, connectionsMax }: RoutedShard,
  servers: readonly string[],
): string {
  const lines = servers.map((line, index) => (members[index]?.region === region ? line : `${line} backup`));
  return `# The region's own server, leader or no more than 1 MB behind; those of other regions while it is not. For tools.
listen ${name}-followers
    bind 127.0.0.1:${followersPort}
    maxconn ${connectionsMax}
    option httpchk OPTIONS /read-only?lag=1MB
    http-check expect status 200
    default-server inter 2s fastinter 500ms downinter 2s fall 2 rise 1 on-marked-down shutdown-sessions
${lines.join("\n")}`;
}
