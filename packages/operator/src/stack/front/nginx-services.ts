/** The parts of nginx's configuration that say which processes get a request: places, and groups of services where there are some. */
import { type BalancedServer, type Balancer, callPath, failSeconds } from "./balancer.ts";

/** A time as nginx takes it; at least a second. */
export const seconds = (ms: number) => `${Math.max(1, Math.round(ms / 1_000))}s`;

/** What `proxy_pass` names: the group that the request is for. */
export function webUpstream({ split }: Balancer): string {
  return split === undefined ? "web" : "$group";
}

/** By what requests under way are counted: those of one group never use up another's room. */
export function underWayKey({ split }: Balancer): string {
  return split === undefined ? "one" : "$group";
}

/** Which group a request is for; nothing where all are for `web`. */
export function groupRouting({ split }: Balancer): string {
  if (split === undefined) return "";
  const rules = split.rules.map(
    ({ methods, pattern, group }) => `        "~^(?:${methods.join("|")}) ${pattern}$" ${group};`,
  );
  return `    # Which group of services a request is for, by the routes that its processes told; written anew when they tell others.
    map $request_uri $path_asked { "~^(?<path_sent>[^?]*)" $path_sent; }
    map "$request_method $path_asked" $group {
        default web;
${rules.join("\n")}
    }

`;
}

/** The places of all groups. */
export function upstreams(balancer: Balancer): string {
  const groups = [{ name: "web", servers: balancer.servers }, ...(balancer.split?.groups ?? [])];
  return `    # The places of the processes. Where nobody listens the connection is refused, and the request goes to the next
    # place, whatever its method: so processes come and go without a reload. A place that failed rests for ${failSeconds} s.
${groups.map((group) => upstream(group, balancer)).join("\n")}`;
}

function upstream(
  { name, servers }: { readonly name: string; readonly servers: readonly BalancedServer[] },
  { limits: { upstreamKeepAliveMs } }: Balancer,
): string {
  const lines = servers.map(
    (server) =>
      `        server ${server.host}:${server.port} max_fails=1 fail_timeout=${failSeconds}s; # ${server.name}`,
  );
  return `    upstream ${name} {
        zone places_${name} 256k;
        least_conn;
${lines.join("\n")}

        # Idle connections end here first: a process that stops waits longer than this before it closes its own.
        keepalive 64;
        keepalive_timeout ${seconds(upstreamKeepAliveMs)};
    }`;
}

/** Where processes call services of other groups: a port of loopback for each group. Nothing where there are no groups. */
export function internalServers(balancer: Balancer): string {
  if (balancer.split === undefined) return "";
  const { answerMs, connectMs } = balancer.limits;
  return Object.entries(balancer.split.internalPorts)
    .map(
      ([name, port]) => `
    # Calls of other groups' processes to the services of ${name}, and nothing else. The caller repeats what may be repeated.
    server {
        listen 127.0.0.1:${port};
        access_log off;
        client_max_body_size 2m;

        location ${callPath} {
            proxy_pass http://${name};
            proxy_next_upstream error timeout;
            proxy_connect_timeout ${connectMs}ms;
            proxy_read_timeout ${seconds(answerMs)};
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
        }
        location / { return 404; }
    }
`,
    )
    .join("");
}
