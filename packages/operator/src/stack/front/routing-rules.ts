/**
 * Which group of services a request is for, from the routes that the processes tell: rules for a balancer, in the order in which the
 * app's own router (find-my-way) would look, so that a request reaches the route that it would reach in one process.
 *
 * Segment by segment a fixed text comes before a parameter, and that before a wildcard. Requests that fit no rule go to `web`; its own
 * routes are rules only where one of another group's would take their requests.
 */
import { webGroup } from "rungs/topology";

/** A route of the app and the group whose processes serve it. */
export interface RouteOfGroup {
  readonly group: string;
  readonly method: string;
  /** As Fastify takes it: "/articles/:slug". */
  readonly path: string;
}

/** One rule; the first that fits counts. */
export interface RoutingRule {
  readonly group: string;
  /** In alphabetical order. */
  readonly methods: readonly string[];
  /** A regular expression (PCRE) for the whole path as sent, without query. */
  readonly pattern: string;
}

interface Segment {
  readonly pattern: string;
  /** 3 a fixed text, 2 a parameter with a text or form, 1 a parameter, 0 a wildcard, which takes the rest. */
  readonly rank: 0 | 1 | 2 | 3;
}

interface Rule extends RoutingRule {
  readonly segments: readonly Segment[];
}

/** The rules; none when all routes are those of `web`. */
export function routingRules(routes: readonly RouteOfGroup[]): RoutingRule[] {
  const rules = new Map<string, Rule>();
  for (const { group, method, path } of routes) {
    for (const each of variantsOf(path)) {
      const segments = segmentsOf(each);
      const pattern = patternOf(segments);
      const key = `${group} ${pattern}`;
      const methods = [...new Set([...(rules.get(key)?.methods ?? []), method])].sort();
      rules.set(key, { group, methods, pattern, segments });
    }
  }
  const sorted = [...rules.values()].sort(bySpecificity);
  return sorted
    .filter((rule, index) => rule.group !== webGroup || sorted.slice(index + 1).some((later) => isTakenBy(rule, later)))
    .map(({ group, methods, pattern }) => ({ group, methods, pattern }));
}

/** A parameter at the end may be optional. */
function variantsOf(path: string): string[] {
  return path.endsWith("?") ? [path.slice(0, -1), path.replace(/\/[^/]*$/, "") || "/"] : [path];
}

function segmentsOf(path: string): Segment[] {
  const texts = path === "/" ? [] : path.replace(/^\/|\/$/g, "").split("/");
  const wildcard = texts.findIndex((text) => text.includes("*") && !text.includes("("));
  return (wildcard === -1 ? texts : texts.slice(0, wildcard + 1)).map(segmentOf);
}

/** What follows a colon up to a sign that ends a name; a form in brackets may follow. Two colons stand for one. */
const parts = /::|:([^:(\-./]+)(\((?:[^()]|\([^()]*\))*\))?|\*|[^:*]+|:/g;

function segmentOf(text: string): Segment {
  let pattern = "";
  const kinds = new Set<"text" | "form" | "parameter" | "wildcard">();
  for (const [part, name, form] of text.matchAll(parts)) {
    if (part === "*") {
      kinds.add("wildcard");
      pattern += ".*";
    } else if (name !== undefined) {
      kinds.add(form === undefined ? "parameter" : "form");
      pattern += form === undefined ? "[^/]+" : `(?:${form.slice(1, -1).replace(/^\^|\$$/g, "")})`;
    } else {
      kinds.add("text");
      pattern += escaped(part === "::" ? ":" : part);
    }
  }
  if (kinds.has("wildcard")) return { pattern, rank: 0 };
  if (!kinds.has("parameter") && !kinds.has("form")) return { pattern, rank: 3 };
  return { pattern, rank: kinds.size === 1 && kinds.has("parameter") ? 1 : 2 };
}

/** The app takes a slash at the end for the same address. */
function patternOf(segments: readonly Segment[]): string {
  return `${segments.map(({ pattern }) => `/${pattern}`).join("")}/?`;
}

function bySpecificity(left: Rule, right: Rule): number {
  for (let index = 0; ; index++) {
    const [one, other] = [left.segments[index], right.segments[index]];
    if (one === undefined || other === undefined) return left.segments.length - right.segments.length;
    if (one.rank !== other.rank) return other.rank - one.rank;
    if (one.pattern !== other.pattern) return one.pattern < other.pattern ? -1 : 1;
  }
}

/** Whether the later rule, of another group, would take some requests of this one. */
function isTakenBy(rule: Rule, later: Rule): boolean {
  if (later.group === rule.group || !rule.methods.some((method) => later.methods.includes(method))) return false;
  for (let index = 0; ; index++) {
    const [one, other] = [rule.segments[index], later.segments[index]];
    if (one?.rank === 0 || other?.rank === 0) return true;
    if (one === undefined || other === undefined) return one === other;
    if (one.rank === 3 && other.rank === 3 && one.pattern !== other.pattern) return false;
  }
}

/** As a path has it on its way: letters beyond ASCII are encoded there. */
function escaped(text: string): string {
  const sent = text.replace(/[^\x21-\x7e]/gu, encodeURIComponent);
  return sent.replace(/[.*+?^${}()|[\]\\"]/g, "\\$&");
}
