/** A balancer as nginx's configuration. Needs nginx 1.21.1 or newer, which refuses requests with two lengths. */
import { type Balancer, retryAfterSeconds, untrustedHeaders } from "./balancer.ts";
import { groupRouting, internalServers, seconds, underWayKey, upstreams, webUpstream } from "./nginx-services.ts";

/** Where this nginx keeps its files, and who runs it. */
export interface NginxPlaces {
  /** Folder of pid file and temporary files. */
  readonly work: string;
  /** Folder of the pages shown when nobody answers; workers must be able to read it. */
  readonly pages: string;
  readonly accessLog: string;
  /** Worker processes: one a core is right; default "auto". */
  readonly workers?: number;
}

/** The whole file. */
export function nginxConfig(balancer: Balancer, places: NginxPlaces): string {
  const { work, accessLog, workers } = places;
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `# The load balancer in front of the web processes. Written by rungs up at each start: changes here are lost.
# Test it with: nginx -t -c THIS_FILE

daemon off;
worker_processes ${workers ?? "auto"};
worker_rlimit_nofile 16384;
worker_shutdown_timeout 10s;
pid ${work}/nginx.pid;

events {
    worker_connections 4096;
}

http {
    log_format balancer escape=json
        '{"time":"$time_iso8601","id":"$request_id","client":"$remote_addr","method":"$request_method","uri":"$uri",'
        '"status":$status,"bytes":$body_bytes_sent,"seconds":$request_time,"upstream":"$upstream_addr",'
        '"upstream_status":"$upstream_status","upstream_seconds":"$upstream_response_time"}';
    access_log ${accessLog} balancer buffer=32k flush=1s;
${temporary.map((name) => `    ${name}_temp_path ${work}/${name};`).join("\n")}

    server_tokens off;
    default_type application/octet-stream;
    sendfile on;
    tcp_nodelay on;

${limits(balancer)}

${compression()}

    # Websockets may switch protocols, nothing else may: h2c would carry requests past the rules below.
    map $http_upgrade $upgrade_to        { default ""; "~*^websocket$" websocket; }
    map $http_upgrade $connection_header { default ""; "~*^websocket$" upgrade; }

    # Who asks for a page gets a page when nobody answers; programs get JSON.
    map $http_accept $unavailable_page { default /unavailable.json; "~*text/html" /unavailable.html; }
    map $http_accept $refused_page     { default /refused.json; "~*text/html" /refused.html; }
    map $status $refusal {
        default "the request could not be understood";
        413 "is too large";
        414 "the address is too long";
    }

${client(balancer)}

${groupRouting(balancer)}${overload(balancer)}

${upstreams(balancer)}

${server(balancer, places)}
${internalServers(balancer)}}
`;
}

function limits({ limits: { bodyBytes, headersMs, bodyMs, keepAliveMs, headersBytes } }: Balancer): string {
  return `    # Limits, equal to the app's. A client that sends slowly is cut off and costs no web process.
    client_header_timeout ${seconds(headersMs)};
    client_body_timeout ${seconds(bodyMs)};
    client_max_body_size ${bodyBytes};
    client_header_buffer_size 1k;
    large_client_header_buffers 2 ${Math.floor(headersBytes / 2 / 1024)}k;
    send_timeout 30s;
    keepalive_timeout ${seconds(keepAliveMs)};
    keepalive_requests 10000;
    reset_timedout_connection on;`;
}

/** As the app tells them apart (web/overload.ts of rungs), so that both refuse the same requests first. */
const overload = (
  balancer: Balancer,
) => `    # Overload. A refusal here costs a fraction of one by a web process: more requests under way than these would wait too long
    # anyway. Declared bots have the least room, who claims a session the most; health checks are never refused.
    map $http_user_agent $is_bot {
        default 0;
        "~*(?<!\\bcu)bot\\b|crawl|spider|slurp|facebookexternalhit|preview|archiver|scrapy" 1;
    }
    map $http_cookie $has_session { default 0; "~(?:^|;\\s*)(?:__Host-)?session=" 1; }
    map "$is_bot$has_session$http_authorization" $client_class { default signed_in; "~^1" bot; "00" anonymous; }
    map $uri $is_probe { default 0; "~^/(healthz|readyz)$" 1; }
    map "$is_probe$client_class" $bot_under_way       { default ""; 0bot ${underWayKey(balancer)}; }
    map "$is_probe$client_class" $anonymous_under_way { default ""; 0anonymous ${underWayKey(balancer)}; }
    map "$is_probe$client_class" $signed_in_under_way { default ""; 0signed_in ${underWayKey(balancer)}; }
    limit_conn_zone $bot_under_way zone=bot:32k;
    limit_conn_zone $anonymous_under_way zone=anonymous:32k;
    limit_conn_zone $signed_in_under_way zone=signed_in:32k;
    limit_conn_status 503;
    limit_conn_log_level info;`;

function underWay({ limits: { underWayMax } }: Balancer): string {
  const { bot, anonymous, signedIn } = underWayMax;
  return `            limit_conn bot ${bot};
            limit_conn anonymous ${anonymous};
            limit_conn signed_in ${signedIn};`;
}

function compression(): string {
  return `    # Answers made by the app. What it sends compressed already, such as its static files, stays as it is.
    gzip on;
    gzip_comp_level 4;
    gzip_min_length 1024;
    gzip_proxied any;
    gzip_vary on;
    gzip_types application/json application/javascript application/manifest+json application/xml image/svg+xml
               text/css text/javascript text/plain text/xml;`;
}

function client({ trusted }: Balancer): string {
  if (trusted.length === 0) {
    return `    # Nobody stands in front of this balancer: who connects is who asks.
    map $scheme $client_scheme { default $scheme; }`;
  }
  return `    # The proxies in front of this balancer: only they are believed about who asks, and how.
${trusted.map((network) => `    set_real_ip_from ${network};`).join("\n")}
    real_ip_header X-Forwarded-For;
    real_ip_recursive on;
    geo $realip_remote_addr $is_trusted {
        default 0;
${trusted.map((network) => `        ${network} 1;`).join("\n")}
    }
    map $is_trusted:$http_x_forwarded_proto $client_scheme { default $scheme; "1:https" https; }`;
}

function server(balancer: Balancer, { pages }: NginxPlaces): string {
  const { listen, routes } = balancer;
  const host = listen.host.includes(":") ? `[${listen.host}]` : listen.host;
  const hidden = routes.hidden.map((path) => `        location ~ ^${escapePath(path)}(/|$) { return 404; }`);
  return `    server {
        listen ${host}:${listen.port} backlog=1024;

${forwarding(balancer)}

        location / {
${underWay(balancer)}
            # Who sends a key to tell repetitions by (Idempotency-Key) may have the request sent twice.
            if ($http_idempotency_key) { return 418; }
            error_page 418 = @keyed;
            error_page 400 413 414 $refused_page;
            error_page 502 503 504 $unavailable_page;
            recursive_error_pages on;
            proxy_pass http://${webUpstream(balancer)};
        }
        location @keyed {
${underWay(balancer)}
            proxy_pass http://${webUpstream(balancer)};
            proxy_next_upstream error timeout non_idempotent;
        }
${routes.uploads.map((upload, index) => uploadLocation(upload, index, balancer)).join("")}${routes.streams.map((path) => streamLocation(path, balancer)).join("")}
        # Not for the outside.
${hidden.join("\n")}

        # When no web process answers: tell people and programs to come back.
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
        }
    }`;
}

function forwarding({ limits: { answerMs, connectMs } }: Balancer): string {
  const cleared = untrustedHeaders.map((name) => `        proxy_set_header ${name} "";`);
  return `        # A request may be tried elsewhere while nothing of it was sent, and when it is safe to repeat (GET, HEAD, PUT,
        # DELETE, OPTIONS). A POST that was sent to a process is not sent to a second one.
        proxy_next_upstream error timeout;
        proxy_next_upstream_timeout ${seconds(answerMs)};
        proxy_connect_timeout ${connectMs}ms;
        proxy_read_timeout ${seconds(answerMs)};
        proxy_send_timeout ${seconds(answerMs)};

        proxy_http_version 1.1;
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

function escapePath(path: string): string {
  return path.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
