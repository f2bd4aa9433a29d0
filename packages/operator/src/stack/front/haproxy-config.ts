/** A balancer as HAProxy's configuration, for version 2.6 or newer. */
import type { Balancer } from "./balancer.ts";
import { forwardedFrontend, type HaproxyFiles, publicFrontend } from "./haproxy-frontends.ts";
import { backends, callFrontends } from "./haproxy-services.ts";
import { underWayTable } from "./haproxy-under-way.ts";

/** Where this HAProxy keeps its files, and how much of the machine is its own. */
export interface HaproxyPlaces extends HaproxyFiles {
  /** Unix socket of the runtime interface; only its owner may use it. */
  readonly socket: string;
  /** Names of the places that have a process; the others begin disabled, because HAProxy takes a place for good until it was checked. */
  readonly inUse: ReadonlySet<string>;
  /** One a core is right; default that. */
  readonly threads?: number;
}

/** The whole file. */
export function haproxyConfig(balancer: Balancer, places: HaproxyPlaces): string {
  const parts = [
    globalPart(balancer, places),
    publicFrontend(balancer, places),
    ...callFrontends(balancer),
    ...forwardedFrontend(balancer, places),
    ...backends(balancer, places.inUse),
    underWayTable,
  ];
  return `# The load balancer in front of the web processes. Written by rungs up at each start: changes here are lost.
# Test it with: haproxy -c -f THIS_FILE

${parts.join("\n\n")}
`;
}

function globalPart({ limits }: Balancer, { socket, threads }: HaproxyPlaces): string {
  return `global
    maxconn 4096${threads === undefined ? "" : `\n    nbthread ${threads}`}
    # Places are drained, and rules replaced, through this socket.
    stats socket ${socket} mode 600 level admin
    hard-stop-after 10s
    # Headers of a request, with some room for those added here.
    tune.bufsize ${limits.headersBytes + 4096}
    tune.maxrewrite 4096
    log stdout format raw local0 info

defaults
    mode http
    log global
    option dontlognull
    # On a reload, idle connections end with their next answer, not just when a request may be on its way.
    option idle-close-on-response
    # A client that leaves is waited for no longer: the app hears of it, and its request is no longer under way.
    option abortonclose
    timeout connect ${limits.connectMs}ms
    # A client must have sent its headers within this: byte by byte costs no web process.
    timeout http-request ${limits.headersMs}ms
    timeout client ${limits.bodyMs}ms
    timeout server ${limits.answerMs}ms
    timeout http-keep-alive ${limits.keepAliveMs}ms
    timeout tunnel 1h
    # What nobody has received is sent to another place, whatever its method.
    retries 3
    option redispatch 1
    retry-on conn-failure
    # Free places are down until a process answers there.
    option httpchk GET /healthz
    http-check expect status 200
    default-server inter 500ms fastinter 250ms downinter 500ms fall 2 rise 1 pool-purge-delay ${Math.floor(limits.upstreamKeepAliveMs / 2)}ms`;
}
