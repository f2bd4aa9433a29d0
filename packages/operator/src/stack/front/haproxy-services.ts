/** The parts of HAProxy's configuration that say which processes get a request: places, and groups of services where there are some. */
import { webGroup } from "rungs/topology";
import { type BalancedServer, type Balancer, callPath } from "./balancer.ts";
import type { RoutingRule } from "./routing-rules.ts";

/** Places that a backend leads to, and its name. */
interface BackendGroup {
  readonly name: string;
  readonly servers: readonly BalancedServer[];
}

/** All groups, `web` first; the backend that does a group's checks has its name. */
export function backendGroups({ servers, split }: Balancer): readonly BackendGroup[] {
  return [{ name: webGroup, servers }, ...(split?.groups ?? [])];
}

/** What `use_backend` names: that of the request's group, for requests of a kind with times or rules of repeating of their own. */
export function backendFor({ split }: Balancer, kind?: "keyed" | "streams" | `uploads_${number}`): string {
  return `${split === undefined ? webGroup : "%[var(txn.group)]"}${kind === undefined ? "" : `.${kind}`}`;
}

/** Which group a request is for; nothing where all are for `web`. */
export function groupRouting({ split }: Balancer, rules: string): string[] {
  if (split === undefined) return [];
  return [
    "# Which group of services a request is for, by the routes that its processes told; replaced when they tell others.",
    "http-request set-var(txn.path) path",
    `http-request set-var(txn.group) method,concat(:,txn.path),map_reg(${rules},${webGroup})`,
  ];
}

/** The rules as a map: the first that fits "METHOD:/path" counts. Its keys end at the first blank. */
export function routingMap(rules: readonly RoutingRule[]): string[] {
  return rules.map(
    ({ methods, pattern, group }) => `^(?:${methods.join("|")}):${pattern.replaceAll(" ", String.raw`\x20`)}$ ${group}`,
  );
}

/** Where processes call services of other groups: a port of loopback for each group. Nothing where there are no groups. */
export function callFrontends({ split }: Balancer): string[] {
  const ports = Object.entries(split?.internalPorts ?? {});
  return ports.map(([name, port]) => callFrontend(name, port));
}

function callFrontend(name: string, port: number): string {
  return `# Calls of other groups' processes to the services of ${name}, and nothing else. The caller repeats what may be repeated.
frontend calls.${name}
    bind 127.0.0.1:${port}
    no log
    http-request return status 404 unless { path -m reg ^${callPath}(/|$) }
    default_backend ${name}`;
}

/** Those of each group: one does the checks; the others, for requests with other times or other rules of repeating, follow it. */
export function backends(balancer: Balancer, inUse: ReadonlySet<string>): string[] {
  return backendGroups(balancer).flatMap((group) => backendsOf(group, balancer, inUse));
}

function backendsOf(
  { name, servers }: BackendGroup,
  { routes, limits }: Balancer,
  inUse: ReadonlySet<string>,
): string[] {
  const backend = (kind: string, lines: readonly string[], settings: (place: string) => string) =>
    [
      `backend ${name}${kind}`,
      "    balance leastconn",
      "    http-reuse safe",
      ...lines.map((line) => `    ${line}`),
      ...servers.map((server) => `    server ${server.name} ${server.host}:${server.port} ${settings(server.name)}`),
    ].join("\n");
  const follower = (kind: string, lines: readonly string[]) =>
    backend(kind, lines, (place) => `track ${name}/${place}`);
  const repeated = "retry-on conn-failure empty-response response-timeout";
  return [
    backend("", [], (place) => `check${inUse.has(place) ? "" : " disabled"}`),
    follower(".keyed", [repeated]),
    ...(routes.streams.length === 0 ? [] : [follower(".streams", ["timeout server 1h", `${repeated} 503`])]),
    ...routes.uploads.map(({ timeoutMs }, index) =>
      follower(`.uploads_${index}`, [`timeout server ${Math.max(timeoutMs, limits.answerMs)}ms`]),
    ),
  ];
}
