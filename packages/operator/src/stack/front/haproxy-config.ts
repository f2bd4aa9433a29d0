/** A balancer as HAProxy's configuration, for version 2.6 or newer. */
import { type Balancer, retryAfterSeconds, unavailablePage, untrustedHeaders } from "./balancer.ts";

/** Where this HAProxy keeps its files. */
export interface HaproxyPlaces {
  /** Unix socket of the runtime interface; only its owner may use it. */
  readonly socket: string;
  /** Names of the places that have a process; the others begin disabled, because HAProxy takes a place for good until it was checked. */
  readonly inUse: ReadonlySet<string>;
  /** Folder of the answers given when nobody else answers: 502.http, 503.http and 504.http. */
  readonly answers: string;
}

/** Name of the backend of the web processes. */
export const backendName = "web";

/** The whole file. */
export function haproxyConfig(balancer: Balancer, places: HaproxyPlaces): string {
  return `# The load balancer in front of the web processes. Written by rungs up at each start: changes here are lost.
# Test it with: haproxy -c -f THIS_FILE

${globalPart(balancer, places)}

${frontend(balancer, places)}

${backends(balancer, places)}
`;
}

function globalPart({ limits }: Balancer, { socket }: HaproxyPlaces): string {
  return `global
    maxconn 4096
    # Places are drained through this socket.
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

function frontend({ listen, limits, routes, trusted }: Balancer, { answers }: HaproxyPlaces): string {
  const host = listen.host.includes(":") ? `[${listen.host}]` : listen.host;
  const acls = [
    ...routes.hidden.map((path) => `acl hidden path,url_dec -m reg ^/*${pattern(path)}(/|$)`),
    ...routes.streams.map((path) => `acl stream path -m reg ^${pattern(path)}(/|$)`),
    ...routes.uploads.map(({ path }, index) => `acl upload_${index} path -m reg ^${pattern(path)}(/|$)`),
  ];
  const tooLarge = `http-request return status 413 content-type application/json string '{"errors":{"body":["is too large"]}}' if`;
  const isUpload = routes.uploads.map((_, index) => `!upload_${index} `).join("");
  const lines = [
    `bind ${host}:${listen.port} backlog 1024`,
    ...acls,
    "# Not for the outside.",
    ...(routes.hidden.length === 0 ? [] : ["http-request return status 404 if hidden"]),
    "# Limits, equal to the app's.",
    `${tooLarge} ${isUpload}{ req.hdr_val(content-length) gt ${limits.bodyBytes} }`,
    ...routes.uploads.map(
      ({ bodyLimitBytes }, index) => `${tooLarge} upload_${index} { req.hdr_val(content-length) gt ${bodyLimitBytes} }`,
    ),
    "# Who asks and for what, said by this balancer alone: what the client says of itself is replaced.",
    "unique-id-format %{+X}o%ci%cp%Ts%rt%pid",
    ...untrustedHeaders.map((name) => `http-request del-header ${name}`),
    ...(trusted.length === 0
      ? ["http-request set-header X-Forwarded-Proto http"]
      : [
          "# The proxies in front of this balancer: only they are believed about who asks, and how.",
          `acl is_trusted src ${trusted.join(" ")}`,
          "http-request set-header X-Forwarded-Proto http unless is_trusted { req.hdr(X-Forwarded-Proto) https }",
          "http-request set-src req.hdr_ip(X-Forwarded-For,-1) if is_trusted { req.hdr(X-Forwarded-For) -m found }",
        ]),
    "http-request set-header X-Forwarded-For %[src]",
    "http-request set-header X-Forwarded-Host %[req.hdr(Host)]",
    "http-request set-header X-Real-IP %[src]",
    "http-request set-header X-Request-Id %[unique-id]",
    "# Websockets may switch protocols, nothing else may.",
    "http-request del-header Upgrade unless { req.hdr(Upgrade) -i websocket }",
    "# Answers of the app for people and programs; what it compressed already stays as it is.",
    "compression algo gzip",
    "compression type application/json image/svg+xml text/css text/html text/javascript text/plain",
    `log-format '{"id":"%ID","client":"%ci","method":"%HM","path":"%HPO","status":%ST,"bytes":%B,"ms":%Ta,"server":"%s","retries":"%rc","end":"%ts"}'`,
    ...["502", "503", "504"].map((status) => `errorfile ${status} ${answers}/${status}.http`),
    ...(routes.streams.length === 0 ? [] : ["use_backend streams if stream"]),
    ...routes.uploads.map((_, index) => `use_backend uploads_${index} if upload_${index}`),
    "# Who sends a key to tell repetitions by may have the request sent twice.",
    "use_backend keyed if { req.hdr(Idempotency-Key) -m found } || METH_GET || { method HEAD PUT DELETE OPTIONS }",
    `default_backend ${backendName}`,
  ];
  return `frontend public\n${lines.map((line) => `    ${line}`).join("\n")}`;
}

/** One does the checks; the others, for requests with other times or other rules of repeating, follow it. */
function backends({ servers, routes, limits }: Balancer, { inUse }: HaproxyPlaces): string {
  const followers = (name: string, lines: readonly string[]) =>
    [
      `backend ${name}`,
      "    balance leastconn",
      "    http-reuse safe",
      ...lines.map((line) => `    ${line}`),
      ...servers.map(
        (server) => `    server ${server.name} ${server.host}:${server.port} track ${backendName}/${server.name}`,
      ),
    ].join("\n");
  const checked = [
    `backend ${backendName}`,
    "    balance leastconn",
    "    http-reuse safe",
    ...servers.map(
      ({ name, host, port }) => `    server ${name} ${host}:${port} check${inUse.has(name) ? "" : " disabled"}`,
    ),
  ].join("\n");
  const repeated = "retry-on conn-failure empty-response response-timeout";
  return [
    checked,
    followers("keyed", [repeated]),
    ...(routes.streams.length === 0 ? [] : [followers("streams", ["timeout server 1h", `${repeated} 503`])]),
    ...routes.uploads.map(({ timeoutMs }, index) =>
      followers(`uploads_${index}`, [`timeout server ${Math.max(timeoutMs, limits.answerMs)}ms`]),
    ),
  ].join("\n\n");
}

/** The raw answers, by file name. */
export function haproxyAnswers(): Readonly<Record<string, string>> {
  const reasons = { 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout" };
  return Object.fromEntries(
    Object.entries(reasons).map(([status, reason]) => [
      `${status}.http`,
      [
        `HTTP/1.1 ${status} ${reason}`,
        "Content-Type: text/html; charset=utf-8",
        "Cache-Control: no-store",
        `Retry-After: ${retryAfterSeconds}`,
        "X-Content-Type-Options: nosniff",
        `Content-Length: ${Buffer.byteLength(unavailablePage)}`,
        "",
        unavailablePage,
      ].join("\r\n"),
    ]),
  );
}

function pattern(path: string): string {
  return path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
