/** A balancer as nginx's configuration. Needs nginx 1.21.1 or newer, which refuses requests with two lengths. */
import { type Balancer, clientClasses } from "./balancer.ts";
import { forwardServer, publicServer } from "./nginx-locations.ts";
import { groupRouting, internalServers, seconds, underWayKey, upstreams } from "./nginx-services.ts";

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
  const { work, pages, accessLog, workers } = places;
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

${publicServer(balancer, pages)}
${internalServers(balancer)}${forwardServer(balancer, pages)}}
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

const overload = (
  balancer: Balancer,
) => `    # Overload. A refusal here costs a fraction of one by a web process: more requests under way than these would wait too long
    # anyway. Declared bots have the least room, who claims a session the most; health checks are never refused.
    map $http_user_agent $is_bot {
        default 0;
        "~*${clientClasses.botAgent}" 1;
    }
    map $http_cookie $has_session { default 0; "~${clientClasses.sessionCookie}" 1; }
    map "$is_bot$has_session$http_authorization" $client_class { default signed_in; "~^1" bot; "00" anonymous; }
    map $uri $is_probe { default 0; "~^(${clientClasses.probes.join("|")})$" 1; }
    map "$is_probe$client_class" $bot_under_way       { default ""; 0bot ${underWayKey(balancer)}; }
    map "$is_probe$client_class" $anonymous_under_way { default ""; 0anonymous ${underWayKey(balancer)}; }
    map "$is_probe$client_class" $signed_in_under_way { default ""; 0signed_in ${underWayKey(balancer)}; }
    limit_conn_zone $bot_under_way zone=bot:32k;
    limit_conn_zone $anonymous_under_way zone=anonymous:32k;
    limit_conn_zone $signed_in_under_way zone=signed_in:32k;
    limit_conn_status 503;
    limit_conn_log_level info;`;

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
