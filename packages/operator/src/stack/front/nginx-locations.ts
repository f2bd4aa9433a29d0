/** The parts of nginx's configuration that say what happens to a request by its path, for the public server and the one for other regions. */
import { type Balancer, callPath, escapePath, retryAfterSeconds, untrustedHeaders } from "./balancer.ts";
import { seconds, webUpstream } from "./nginx-services.ts";

/** The server that is open to users, and to the CDN in front of it. `pages`: folder of the pages shown when nobody answers. */
export function publicServer(balancer: Balancer, pages: string): string {
  const { listen, routes } = balancer;
  const host = listen.host.includes(":") ? `[${listen.host}]` : listen.host;
  const hidden = routes.hidden.map((path) => `        location ~ ^${escapePath(path)}(/|$) { return 404; }`);
  return `    server {
        listen ${host}:${listen.port} backlog=1024;

${forwarding(balancer)}

${routeLocations(balancer, underWay(balancer))}${routes.streams.map((path) => streamLocation(path, balancer)).join("")}
        # Not for the outside.
${hidden.join("\n")}

${ownAnswers(pages)}
    }`;
}

/**
 * The server for what other regions forward, each request with a signed header that says who asks: the same ways as for one that came
 * here first. The balancer that it came to has judged it already, so that nothing is refused by who asks or how many do.
 */
export function forwardServer(balancer: Balancer, pages: string): string {
  if (balancer.forwardedPort === undefined) return "";
  return `
    # What other regions forward, and nobody else reaches. Who asks is said by a signed header, in place of those that a balancer sets.
    server {
        listen 127.0.0.1:${balancer.forwardedPort} backlog=1024;

${trying(balancer)}
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_redirect off;
        proxy_buffer_size 8k;
        proxy_buffers 16 8k;

${routeLocations(balancer, "")}
        # Calls between services have ways of their own.
        location ~ ^${escapePath(callPath)}(/|$) { return 404; }

${ownAnswers(pages)}
    }
`;
}

function routeLocations(balancer: Balancer, limits: string): string {
  const { routes } = balancer;
  return `        location / {
${limits}            # Who sends a key to tell repetitions by (Idempotency-Key) may have the request sent twice.
            if ($http_idempotency_key) { return 418; }
            error_page 418 = @keyed;
            error_page 400 413 414 $refused_page;
            error_page 502 503 504 $unavailable_page;
            recursive_error_pages on;
            proxy_pass http://${webUpstream(balancer)};
        }
        location @keyed {
${limits}            proxy_pass http://${webUpstream(balancer)};
            proxy_next_upstream error timeout non_idempotent;
        }
${routes.uploads.map((upload, index) => uploadLocation(upload, index, balancer)).join("")}`;
}

/** What nginx itself says, in the app's form. */
function ownAnswers(pages: string): string {
  return `        # When no web process answers: tell people and programs to come back.
        error_page 502 503 504 $unavailable_page;
        location ~ ^/unavailable\\.(html|json)$ {
            internal;
            root ${pages};
            types { text/html html; application/json json; }
            charset utf-8;
            add_header Retry-After ${retryAfterSeconds} always;
            add_header Cache-Control no-store always;
            add_header X-Request-Id $request_id always;
            add_header X-Content-Type-Options nosniff always;
        }

        # What this balancer refuses itself is said as the app says it. Too large headers (494) are a bad request too.
        error_page 400 413 414 $refused_page;
        error_page 494 =400 $refused_page;
        location = /refused.json {
            internal;
            add_header Cache-Control no-store always;
            add_header X-Request-Id $request_id always;
            add_header X-Content-Type-Options nosniff always;
            default_type application/json;
            return 200 '{"errors":{"body":["$refusal"]}}';
        }
        location = /refused.html {
            internal;
            add_header Cache-Control no-store always;
            add_header X-Request-Id $request_id always;
            add_header X-Content-Type-Options nosniff always;
            default_type text/html;
            return 200 '<!doctype html><html lang="en"><title>Refused</title><p>Refused: $refusal.</p></html>';
        }`;
}

function underWay({ limits: { underWayMax } }: Balancer): string {
  const { bot, anonymous, signedIn } = underWayMax;
  return `            limit_conn bot ${bot};
            limit_conn anonymous ${anonymous};
            limit_conn signed_in ${signedIn};
`;
}

function trying({ limits: { answerMs, connectMs } }: Balancer): string {
  return `        # A request may be tried elsewhere while nothing of it was sent, and when it is safe to repeat (GET, HEAD, PUT,
        # DELETE, OPTIONS). A POST that was sent to a process is not sent to a second one.
        proxy_next_upstream error timeout;
        proxy_next_upstream_timeout ${seconds(answerMs)};
        proxy_connect_timeout ${connectMs}ms;
        proxy_read_timeout ${seconds(answerMs)};
        proxy_send_timeout ${seconds(answerMs)};

        proxy_http_version 1.1;`;
}

function forwarding(balancer: Balancer): string {
  const cleared = untrustedHeaders.map((name) => `        proxy_set_header ${name} "";`);
  return `${trying(balancer)}
        proxy_set_header Connection $connection_header;
        proxy_set_header Upgrade $upgrade_to;

        # Who asks and for what, said by this balancer alone: what the client says of itself is replaced.
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Proto $client_scheme;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header X-Request-Id $request_id;
${cleared.join("\n")}
        proxy_redirect off;
        proxy_buffer_size 8k;
        proxy_buffers 16 8k;`;
}

function uploadLocation(
  { path, bodyLimitBytes, timeoutMs }: Balancer["routes"]["uploads"][number],
  index: number,
  balancer: Balancer,
): string {
  const answerMs = Math.max(timeoutMs, balancer.limits.answerMs);
  return `
        # Uploads reach the app as they arrive, so that it can refuse them early and show how far they are. A connection whose body
        # was not read to its end takes no further request, and that has to be said before the answer is known: it ends with each.
        location ${prefix(path)} {
            if ($request_method !~ ^(GET|HEAD|DELETE|OPTIONS)$) { return 418; }
            error_page 418 = @upload_${index + 1};
            error_page 400 413 414 $refused_page;
            error_page 502 503 504 $unavailable_page;
            recursive_error_pages on;
            client_max_body_size ${bodyLimitBytes};
            proxy_pass http://${webUpstream(balancer)};
        }
        location @upload_${index + 1} {
            proxy_pass http://${webUpstream(balancer)};
            proxy_request_buffering off;
            keepalive_timeout 0;
            client_max_body_size ${bodyLimitBytes};
            client_body_timeout 60s;
            proxy_send_timeout ${seconds(answerMs)};
            proxy_read_timeout ${seconds(answerMs)};
            proxy_next_upstream error;
        }
`;
}

function streamLocation(path: string, balancer: Balancer): string {
  return `
        # Live streams stay open as long as the page is. A process that stops refuses new ones: then another one is asked.
        location ${prefix(path)} {
            proxy_pass http://${webUpstream(balancer)};
            proxy_buffering off;
            gzip off;
            proxy_read_timeout 1h;
            proxy_send_timeout 1h;
            proxy_next_upstream error timeout http_503;
        }
`;
}

/** "/api/uploads" is meant with all below it, and not "/api/uploadsX"; the app takes a slash at the end for the same address. */
function prefix(path: string): string {
  return `~ ^${escapePath(path)}(/|$)`;
}
