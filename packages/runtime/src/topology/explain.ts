/** Says what is wrong with a topology so that a person can mend it: path, found, expected, nearest name, source. */
import type { z } from "zod";
import { settingsOf } from "./paths.ts";
import { defaultTopology } from "./schema.ts";

/** One line an issue. Values are shown unless they may hold a secret. */
export function explainIssues(error: z.ZodError, content: unknown, source: (path: string) => string): string[] {
  return error.issues.flatMap((issue) => {
    const path = issue.path.join(".");
    const from = `(from ${source(path)})`;
    if (issue.code === "unrecognized_keys") {
      return issue.keys.map((key) => `${join(path, key)}: no such setting${nearest(join(path, key))} ${from}.`);
    }
    return [`${path === "" ? "topology" : path}: ${expected(issue)}, found ${shown(valueAt(content, issue.path))} ${from}.`];
  });
}

function expected(issue: z.core.$ZodIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return `expected ${issue.expected === "int" ? "an integer" : issue.expected}`;
    case "too_small":
      return `expected at least ${issue.minimum}`;
    case "too_big":
      return `expected at most ${issue.maximum}`;
    case "invalid_value":
      return `expected one of ${issue.values.map((value) => JSON.stringify(value)).join(", ")}`;
    case "invalid_union":
      return [...new Set(issue.errors.flat().map(expected))].join(", or ");
    default:
      return issue.message;
  }
}

/** Addresses and long texts may hold a password: only their kind is told. */
function shown(value: unknown): string {
  if (value === undefined) return "nothing";
  if (typeof value === "string") return value.includes("://") || value.length > 60 ? "a text" : JSON.stringify(value);
  if (typeof value === "object" && value !== null) return Array.isArray(value) ? "a list" : "an object";
  return String(value);
}

function valueAt(content: unknown, path: readonly PropertyKey[]): unknown {
  let at = content;
  for (const key of path) at = typeof at === "object" && at !== null ? (at as Record<PropertyKey, unknown>)[key] : undefined;
  return at;
}

function join(path: string, key: string): string {
  return path === "" ? key : `${path}.${key}`;
}

/** The known setting that needs the fewest changes, if it is near enough to be what was meant. */
function nearest(path: string): string {
  const known = new Set(settingsOf(defaultTopology).flatMap(([setting]) => setting.split(".").map((_, at, all) => all.slice(0, at + 1).join("."))));
  const optional = ["sessions.url", "cache.url", "cdn", "cdn.provider", "cdn.zone", "cdn.token", "queue.url", "regions", "web.balancer"];
  const [best] = [...known, ...optional].map((name) => ({ name, distance: editDistance(name, path) })).sort((a, b) => a.distance - b.distance);
  return best !== undefined && best.distance <= 3 ? `; did you mean ${best.name}?` : "";
}

/** Levenshtein distance. */
export function editDistance(left: string, right: string): number {
  let row = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let i = 1; i <= left.length; i++) {
    const next = [i];
    for (let j = 1; j <= right.length; j++) {
      const cost = left[i - 1] === right[j - 1] ? 0 : 1;
      next.push(Math.min((row[j] as number) + 1, (next[j - 1] as number) + 1, (row[j - 1] as number) + cost));
    }
    row = next;
  }
  return row[right.length] as number;
}
