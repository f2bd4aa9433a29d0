/** The part of HAProxy's configuration that refuses what would be too many requests under way at once, by class of client. */
import { type Balancer, clientClasses } from "./balancer.ts";

/** Its name has a dot, as no group of services has. */
const tableName = "requests.under-way";

/** Where they are counted. A request is a stream of HAProxy's and leaves with it, however it ends; an idle connection counts nothing. */
export const underWayTable = `# Requests under way, by class of client and group of services.
backend ${tableName}
    stick-table type string len 64 size 1k expire 1h store conn_cur`;

/**
 * Rules of the public frontend; `aside`: its conditions for paths that are not counted. What is refused is not counted itself: it is asked
 * first whether there is room.
 */
export function underWayRules(balancer: Balancer, aside: readonly string[]): string[] {
  const { bot, anonymous, signedIn } = balancer.limits.underWayMax;
  const { botAgent, sessionCookie, probes } = clientClasses;
  const key = balancer.split === undefined ? "var(txn.class)" : "var(txn.class),concat(:,txn.group)";
  const ofClass = (name: string, room: number, condition: string) => [
    `http-request set-var(txn.class) str(${name})${condition}`,
    `http-request set-var(txn.room) int(${room})${condition}`,
  ];
  return [
    "# Overload. A refusal here costs a fraction of one by a web process: more requests under way than these would wait too long",
    "# anyway. Declared bots have the least room, who claims a session the most; health checks are never refused.",
    `acl is_bot req.fhdr(User-Agent) -m reg -i '${botAgent}'`,
    `acl has_session req.fhdr(Cookie) -m reg '${sessionCookie}'`,
    "acl has_session req.fhdr(Authorization) -m len gt 0",
    ...ofClass("anonymous", anonymous, ""),
    ...ofClass("signed_in", signedIn, " if has_session"),
    ...ofClass("bot", bot, " if is_bot"),
    `acl is_aside path ${probes.join(" ")}`,
    `http-request set-var(txn.counted) ${key} unless ${["is_aside", ...aside].join(" || ")}`,
    `acl is_full var(txn.counted),table_conn_cur(${tableName}),sub(txn.room) ge 0`,
    "http-request return status 503 default-errorfiles if is_full",
    `http-request track-sc0 var(txn.counted) table ${tableName}`,
  ];
}
