/** The VCL of a Varnish in front of a balancer: the CDN's point of presence of a stack. */
import { measuringCookies } from "rungs/cdn";
import { escapePath, retryAfterSeconds, unavailableJson, unavailablePage, untrustedHeaders } from "./balancer.ts";

/** What the edge needs to know. */
export interface Edge {
  /** Where the balancer listens. */
  readonly origin: { readonly host: string; readonly port: number };
  /** Asked for by purges and by `rungs cdn inspect`; of letters, digits, - and _. */
  readonly secret: string;
  /** Proxies in front of the edge, as networks: only these are believed about who asks. */
  readonly trusted: readonly string[];
  /** Path prefixes of files that are the same for everybody, signed in or not. */
  readonly files: readonly string[];
  /** Path prefixes that are not for the outside. */
  readonly hidden: readonly string[];
  /** Longest wait for the app's first byte. */
  readonly answerMs: number;
}

/** Answers over this are passed through: a film would push everything else out of memory. */
const storedBytesMax = 8 * 1024 * 1024;

/** How long an address whose refresh failed rests, as a duration of VCL: its old answer is shown, and the app not asked for it. */
const failureRest = "1s";

/** Parameters by which advertisers follow a click; no page of the app depends on them. */
const campaignParameters = "utm_[a-z_]+|gclid|fbclid|msclkid|mc_eid";

/** Headers that could change an answer and that no cache key holds; some frameworks obey them. */
const unkeyedHeaders = [
  ...untrustedHeaders,
  "X-Forwarded-Host",
  "X-Forwarded-Server",
  "X-Forwarded-Scheme",
  "X-Host",
  "X-HTTP-Method-Override",
  "X-HTTP-Method",
  "X-Method-Override",
  "X-Real-IP",
  "X-Request-Id",
  "Upgrade",
];

/** The whole file. */
export function varnishConfig(edge: Edge): string {
  return `vcl 4.1;
# The CDN's point of presence in front of the balancer. Written by rungs up at each start: changes here are lost.
#
# What is kept is the app's decision: only answers with CDN-Cache-Control, to requests without credentials. Times, surrogate
# keys and the reason why an answer is not kept come from the app; this file holds no paths but those of files.

import std;
import vsthrottle;
import xkey;

${backend(edge)}

${trustedAcl(edge)}

${receive(edge)}

${lookUp()}

${backendAnswers()}

${deliver()}
`;
}

function backend({ origin, answerMs }: Edge): string {
  return `backend balancer {
    .host = "${origin.host}";
    .port = "${origin.port}";
    .connect_timeout = 1s;
    .first_byte_timeout = ${Math.ceil(answerMs / 1_000)}s;
    .between_bytes_timeout = 60s;
    # Whether anything answers at all. A database that is down is told by the answers themselves.
    .probe = { .url = "/healthz"; .interval = 1s; .timeout = 2s; .window = 4; .threshold = 2; .initial = 2; }
}`;
}

function trustedAcl({ trusted }: Edge): string {
  const lines = trusted.map((network) => {
    const [address, bits] = network.split("/");
    return `    "${address}"${bits === undefined ? "" : `/${bits}`};`;
  });
  return `# The proxies in front of this edge: only they are believed about who asks, and how.
acl proxies {
${lines.length === 0 ? "    # none" : lines.join("\n")}
}`;
}

function receive(edge: Edge): string {
  const { secret, hidden, files } = edge;
  return `sub vcl_recv {
    if (req.restarts == 0) {
        call take_purge;
        call refuse_tricks;
        call say_who_asks;
        # How far this request got: "first" takes what is there, "fresh" only what is fresh, "stale" also what is old.
        set req.http.X-Edge-Mode = "first";
    }
    unset req.http.X-Edge-Result;
${hidden.length === 0 ? "" : `    if (req.url ~ "^(${hidden.map(escapePath).join("|")})([/?]|$)") { return (synth(404)); }\n`}
    if (req.method != "GET" && req.method != "HEAD") { return (pass); }

    # Files are the same for everybody: their requests lose what says who asks.
    if (req.url ~ "^(${files.map(escapePath).join("|")})/") {
        unset req.http.Cookie;
        unset req.http.Authorization;
    }
    call drop_measuring_cookies;
    if (req.http.Authorization || req.http.Cookie) { return (pass); }

    # An address that two programs could read in two ways is not kept.
    if (req.url ~ "(?i)^[^?]*(;|//|%2f|%3b|%25)" || req.url ~ "^.{2000}") { return (pass); }
    # Of a parameter that comes twice, programs take the first, the last or both.
    if (req.url ~ "[?&]([^=&]*)(=[^&]*)?&(.*&)?\\1(=|&|$)") { return (pass); }
    call normalise_query;

    # All that is old is looked at; vcl_hit decides about it.
    if (req.http.X-Edge-Mode == "fresh") { set req.grace = 0s; } else { set req.grace = 100d; }
    return (hash);
}

sub take_purge {
    if (local.socket == "purge") {
        if (req.method != "PURGE") { return (synth(404)); }
        if (req.http.X-Purge-Secret != "${secret}") { return (synth(403)); }
        if (req.http.xkey-soft) {
            set req.http.X-Edge-Purged = xkey.softpurge(req.http.xkey-purge);
        } else {
            set req.http.X-Edge-Purged = xkey.purge(req.http.xkey-purge);
        }
        return (synth(200, "Purged"));
    }
    if (req.method !~ "^(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS)$") { return (synth(405)); }
}

sub refuse_tricks {
    # Dot segments, backslashes and control characters in a path are how one program is made to see another path.
    if (req.url !~ "^/" || req.url ~ "(?i)^[^?]*(\\\\|%5c|%00|%0a|%0d|/(\\.|%2e)(\\.|%2e)?(/|%2f|[?;]|$))") {
        return (synth(400));
    }
    if (req.http.Host !~ "^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]+)?$") { return (synth(400)); }
    set req.http.Host = std.tolower(req.http.Host);
}

sub say_who_asks {
${unkeyedHeaders.map((name) => `    unset req.http.${name};`).join("\n")}
    unset req.http.X-Edge-Purged;
    unset req.http.X-Edge-Inspect;
    if (req.http.X-Edge-Secret == "${secret}") { set req.http.X-Edge-Inspect = "1"; }
    unset req.http.X-Edge-Secret;
    # Varnish has put the client's address behind what the client said of itself.
    if (client.ip !~ proxies) {
        set req.http.X-Forwarded-For = client.ip;
        set req.http.X-Forwarded-Proto = "http";
    } elsif (req.http.X-Forwarded-Proto != "https") {
        set req.http.X-Forwarded-Proto = "http";
    }
}

sub drop_measuring_cookies {
    # Cookies of measuring scripts, which no page depends on. Whoever has others is asked for by name at the app.
    if (req.http.Cookie) {
        std.collect(req.http.Cookie, "; ");
        set req.http.X-Edge-Cookie = regsuball(";" + req.http.Cookie, ";\\s*(${measuringCookies})=[^;]*", "");
        if (req.http.X-Edge-Cookie ~ "^[;\\s]*$") { unset req.http.Cookie; }
        unset req.http.X-Edge-Cookie;
    }
}

sub normalise_query {
    if (req.url ~ "\\?") {
        set req.url = regsuball(req.url, "(?<=[?&])(${campaignParameters})=[^&]*(&|$)", "");
        set req.url = std.querysort(req.url);
        set req.url = regsub(req.url, "[?&]+$", "");
    }
}`;
}

function lookUp(): string {
  return `sub vcl_hash {
    # Links and cookies of a page differ by scheme. Host and address are added by Varnish itself.
    hash_data(req.http.X-Forwarded-Proto);
}

sub vcl_hit {
    if (obj.ttl > 0s) {
        set req.http.X-Edge-Result = "hit";
        return (deliver);
    }
    # Old: for a dead app, after a try that failed, and for the moment that the app allows while one request fetches it anew.
    # What was purged (old before its time) is not shown while the app answers: readers wait for the one that fetches it.
    if (req.http.X-Edge-Mode == "stale" || !std.healthy(req.backend_hint)
        || vsthrottle.remaining(req.http.Host + req.url, 1, ${failureRest}) == 0
        || (obj.age >= std.duration(obj.http.X-Edge-Life, 0s) && obj.ttl + std.duration(obj.http.X-Edge-Swr, 0s) > 0s)) {
        set req.http.X-Edge-Result = "stale";
        return (deliver);
    }
    set req.http.X-Edge-Mode = "fresh";
    return (restart);
}

sub vcl_miss {
    # Those who waited for a try that failed take what is old, and do not try one after the other.
    if (req.http.X-Edge-Mode == "fresh" && vsthrottle.remaining(req.http.Host + req.url, 1, ${failureRest}) == 0) {
        set req.http.X-Edge-Mode = "stale";
        return (restart);
    }
    set req.http.X-Edge-Result = "miss";
}
sub vcl_pass { set req.http.X-Edge-Result = "pass"; }

# Nothing goes through unread: what follows on such a connection would reach the balancer with this edge's good name.
sub vcl_pipe { return (synth(405)); }`;
}

function backendAnswers(): string {
  return `sub vcl_backend_fetch {
    if (bereq.method == "GET" || bereq.method == "HEAD") { unset bereq.body; }
    if (bereq.is_bgfetch && vsthrottle.remaining(bereq.http.Host + bereq.url, 1, ${failureRest}) == 0) { return (abandon); }
    return (fetch);
}

sub vcl_backend_response {
    if (bereq.uncacheable) { return (deliver); }
    if (beresp.status >= 500) {
        # What is old stays; an answer that is taken over would end it.
        if (bereq.is_bgfetch || bereq.http.X-Edge-Mode == "fresh") { return (abandon); }
        set beresp.uncacheable = true;
        set beresp.ttl = 0s;
        return (deliver);
    }
    # Only what the app shares, and never with a cookie. The mark lets requests for the others pass without waiting in line.
    if (!beresp.http.CDN-Cache-Control || beresp.http.Set-Cookie || beresp.http.Vary ~ "\\*"
        || beresp.http.Cache-Control ~ "(?i)no-store|private") {
        set beresp.uncacheable = true;
        set beresp.ttl = 30s;
        return (deliver);
    }
    if (std.integer(beresp.http.Content-Length, 0) > ${storedBytesMax}) { return (pass(10m)); }
    call times_of_the_app;
    # Whole before it is shown: what breaks off half-way is a failure, and nobody gets the half.
    set beresp.do_stream = false;
    return (deliver);
}

sub times_of_the_app {
    set beresp.http.X-Edge-Life = regsub(beresp.http.CDN-Cache-Control, "^(?:.*[ ,])?max-age=(\\d+).*$", "\\1") + "s";
    set beresp.http.X-Edge-Swr = "0s";
    if (beresp.http.CDN-Cache-Control ~ "stale-while-revalidate=\\d+") {
        set beresp.http.X-Edge-Swr = regsub(beresp.http.CDN-Cache-Control, "^.*stale-while-revalidate=(\\d+).*$", "\\1") + "s";
    }
    set beresp.ttl = std.duration(beresp.http.X-Edge-Life, 0s);
    set beresp.grace = std.duration(beresp.http.X-Edge-Swr, 0s);
    if (beresp.http.CDN-Cache-Control ~ "stale-if-error=\\d+") {
        set beresp.grace = std.duration(
            regsub(beresp.http.CDN-Cache-Control, "^.*stale-if-error=(\\d+).*$", "\\1") + "s", 0s);
    }
    # Kept longer still to ask the app whether it has changed (If-None-Match).
    set beresp.keep = 1h;
}

sub vcl_backend_error {
    if (!bereq.uncacheable && bereq.http.X-Edge-Mode == "fresh") { return (abandon); }
    set beresp.uncacheable = true;
    set beresp.ttl = 0s;
    set beresp.http.Retry-After = "${retryAfterSeconds}";
    set beresp.http.Cache-Control = "no-store";
    set beresp.http.X-Content-Type-Options = "nosniff";
    if (bereq.http.Accept ~ "(?i)text/html") {
        set beresp.http.Content-Type = "text/html; charset=utf-8";
        set beresp.body = {"${unavailablePage}"};
    } else {
        set beresp.http.Content-Type = "application/json; charset=utf-8";
        set beresp.body = {"${unavailableJson}"};
    }
    return (deliver);
}`;
}

function deliver(): string {
  return `sub vcl_deliver {
    set resp.http.X-Cache = req.http.X-Edge-Result;
    # A kept answer has the number of the request it was made for.
    if (req.http.X-Edge-Result == "hit" || req.http.X-Edge-Result == "stale") { set resp.http.X-Request-Id = req.xid; }
    if (req.http.X-Edge-Inspect) {
        if (req.http.X-Edge-Result != "pass") { set resp.http.X-Edge-Ttl = obj.ttl; }
        set resp.http.X-Edge-Hits = obj.hits;
        set resp.http.X-Edge-Url = req.url;
    } else {
        unset resp.http.xkey;
        unset resp.http.CDN-Cache-Control;
        unset resp.http.X-Not-Shared;
    }
    unset resp.http.X-Edge-Life;
    unset resp.http.X-Edge-Swr;
    unset resp.http.X-Varnish;
    unset resp.http.Via;
    return (deliver);
}

sub vcl_synth {
    # A try for something fresh has failed. That is remembered for a moment, and the old answer is taken.
    if (req.http.X-Edge-Mode == "fresh" && resp.status == 503) {
        if (vsthrottle.is_denied(req.http.Host + req.url, 1, ${failureRest})) { }
        set req.http.X-Edge-Mode = "stale";
        return (restart);
    }
    set resp.http.Cache-Control = "no-store";
    set resp.http.X-Content-Type-Options = "nosniff";
    set resp.http.Content-Type = "text/plain; charset=utf-8";
    set resp.body = resp.reason + {"
"};
    if (req.http.X-Edge-Purged) { set resp.body = req.http.X-Edge-Purged + {"
"}; }
    return (deliver);
}`;
}
