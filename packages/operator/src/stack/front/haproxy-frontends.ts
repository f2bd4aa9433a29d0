/** The parts of HAProxy's configuration that say what happens to a request by its path: one for users, one for other regions. */
import {
  type Balancer,
  callPath,
  escapePath,
  retryAfterSeconds,
  unavailableJson,
  unavailablePage,
  untrustedHeaders,
} from "./balancer.ts";
import { backendFor, groupRouting } from "./haproxy-services.ts";
import { underWayRules } from "./haproxy-under-way.ts";

/** What it reads at its start beside its configuration. */
export interface HaproxyFiles {
  /** What is said when nobody else answers, or there is no room, see `unavailableMap`. */
  readonly answers: string;
  /** The rules by which requests go to groups of services, see `routingMap`; read only where there are groups. */
  readonly rules: string;
}

/** The frontend that is open to users, and to the CDN in front of it. */
export function publicFrontend(balancer: Balancer, files: HaproxyFiles): string {
  const { listen, routes, trusted } = balancer;
  const host = listen.host.includes(":") ? `[${listen.host}]` : listen.host;
  return frontend("public", [
    `bind ${host}:${listen.port} backlog 1024`,
    ...routes.streams.map((path) => `acl stream path -m reg ^${escapePath(path)}(/|$)`),
    ...answering(files),
    "# Not for the outside.",
    ...routes.hidden.map((path) => `http-request return status 404 if ${isHidden(path)}`),
    ...sizes(balancer),
    ...groupRouting(balancer, files.rules),
    ...underWayRules(balancer, [...(routes.streams.length === 0 ? [] : ["stream"]), ...uploadNames(balancer)]),
    "# Who asks and for what, said by this balancer alone: what the client says of itself is replaced.",
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
    ...(routes.streams.length === 0 ? [] : [`use_backend ${backendFor(balancer, "streams")} if stream`]),
    ...ways(balancer),
  ]);
}

/**
 * The frontend for what other regions forward, each request with a signed header that says who asks: the same ways as for one that came
 * here first. The balancer that it came to has judged it already, so that nothing is refused by who asks or how many do.
 */
export function forwardedFrontend(balancer: Balancer, files: HaproxyFiles): string[] {
  if (balancer.forwardedPort === undefined) return [];
  const text = frontend("forwarded", [
    `bind 127.0.0.1:${balancer.forwardedPort} backlog 1024`,
    ...answering(files),
    "# Calls between services have ways of their own.",
    `http-request return status 404 if ${isHidden(callPath)}`,
    ...sizes(balancer),
    ...groupRouting(balancer, files.rules),
    "http-request del-header Upgrade",
    ...ways(balancer),
  ]);
  return [
    `# What other regions forward, and nobody else reaches. Who asks is said by a signed header, in place of those that a balancer sets.
${text}`,
  ];
}

function frontend(name: string, lines: readonly string[]): string {
  return `frontend ${name}\n${lines.map((line) => `    ${line}`).join("\n")}`;
}

function sizes({ limits, routes }: Balancer): string[] {
  const tooLarge = `http-request return status 413 content-type application/json string '{"errors":{"body":["is too large"]}}' if`;
  const isUpload = routes.uploads.map((_, index) => `!upload_${index} `).join("");
  return [
    "# Limits, equal to the app's.",
    ...routes.uploads.map(({ path }, index) => `acl upload_${index} path -m reg ^${escapePath(path)}(/|$)`),
    `${tooLarge} ${isUpload}{ req.hdr_val(content-length) gt ${limits.bodyBytes} }`,
    ...routes.uploads.map(
      ({ bodyLimitBytes }, index) => `${tooLarge} upload_${index} { req.hdr_val(content-length) gt ${bodyLimitBytes} }`,
    ),
  ];
}

/** Of an answer that HAProxy makes itself, until its real one is known. */
const ownType = "rungs/unavailable";

/** What is done to answers, said in the log, and said when nobody answers. */
function answering({ answers }: HaproxyFiles): string[] {
  const own = [
    `content-type ${ownType} lf-string %[var(txn.form),map(${answers})]`,
    `hdr Retry-After ${retryAfterSeconds} hdr Cache-Control no-store`,
    "hdr X-Request-Id %[unique-id] hdr X-Content-Type-Options nosniff",
  ].join(" ");
  return [
    "unique-id-format %{+X}o%ci%cp%Ts%rt%pid",
    `log-format '{"id":"%ID","client":"%ci","method":"%HM","path":"%HPO","status":%ST,"bytes":%B,"ms":%Ta,"server":"%s","retries":"%rc","end":"%ts"}'`,
    "# Answers of the app for people and programs; what it compressed already stays as it is.",
    "compression algo gzip",
    "compression type application/json image/svg+xml text/css text/html text/javascript text/plain",
    "# Who asks for a page gets a page when nobody answers; programs get JSON.",
    "http-request set-var(txn.form) str(json)",
    "http-request set-var(txn.form) str(html) if { req.fhdr(Accept) -m sub -i text/html }",
    ...[502, 503, 504].map((status) => `http-error status ${status} ${own}`),
    `acl is_own res.hdr(Content-Type) -m str ${ownType}`,
    "http-after-response set-header Content-Type 'text/html; charset=utf-8' if is_own { var(txn.form) -m str html }",
    "http-after-response set-header Content-Type application/json if is_own",
  ];
}

/** What HAProxy says itself, by the form that is asked for, in one line each. */
export function unavailableMap(): string {
  return `html ${unavailablePage.trim().replaceAll("\n", " ")}\njson ${unavailableJson.trim()}\n`;
}

function ways(balancer: Balancer): string[] {
  return [
    ...uploadNames(balancer).map((name, index) => `use_backend ${backendFor(balancer, `uploads_${index}`)} if ${name}`),
    "# Who sends a key to tell repetitions by may have the request sent twice.",
    `use_backend ${backendFor(balancer, "keyed")} if { req.hdr(Idempotency-Key) -m found } || METH_GET || { method HEAD PUT DELETE OPTIONS }`,
    `use_backend ${backendFor(balancer)}`,
  ];
}

function uploadNames({ routes }: Balancer): string[] {
  return routes.uploads.map((_, index) => `upload_${index}`);
}

/** However the path is written. */
function isHidden(path: string): string {
  return `{ path,url_dec -m reg ^/*${escapePath(path)}(/|$) }`;
}
