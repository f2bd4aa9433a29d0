/** Says what is wrong with a topology so that a person can mend it: path, expected, found, nearest name, source. */
import type { z } from "zod";
import { redactAddress } from "./address.ts";
import { nearestName } from "./nearest.ts";
import { joinPath, pathOf } from "./paths.ts";
import { knownNames } from "./schema.ts";

/** One line an issue. `source` says where the setting at a path was written. */
export function explainIssues(error: z.ZodError, content: unknown, source: (path: string) => string): string[] {
  const lines = error.issues.flatMap((issue) => {
    const path = pathOf(issue.path);
    if (issue.code === "unrecognized_keys") {
      return issue.keys.map((key) => {
        const name = showName(key);
        return `${joinPath(path, name)}: no such setting; ${whatWasMeant(issue.path, name)} (from ${source(joinPath(path, key))}).`;
      });
    }
    if (issue.code === "invalid_key") {
      const at = pathOf([...issue.path.slice(0, -1), showName(String(issue.path.at(-1)))]);
      return [`${at}: ${issue.issues[0]?.message ?? issue.message} (from ${source(path)}).`];
    }
    const found = issue.message.startsWith("expected")
      ? `, got ${showValue(issue.path, valueAt(content, issue.path))}`
      : "";
    return [`${path === "" ? "topology" : path}: ${issue.message}${found} (from ${source(path)}).`];
  });
  return [...new Set(lines)];
}

/** Several problems as one message; a single one stands alone. */
export function joinProblems(problems: readonly string[]): string {
  if (problems.length === 1) return problems[0] ?? "";
  return `${problems.length} problems in the configuration:\n${problems.map((problem) => `- ${problem}`).join("\n")}`;
}

/** A value as messages may show it: short, and never an address's user or password. */
export function showText(text: string): string {
  if (text.length > 60) return `a text of ${text.length} characters`;
  return JSON.stringify(redactAddress(text));
}

/** Settings whose text may be a secret put in the wrong place: their kind is told, never their value. */
const mayBeSecret =
  /^(?:sessions|cache|cdn|storage|queue|regions|database\.shards)\b|^services\.[^.]+\.(?:url$|database\.shards\b)|^(?:cdn|database|web|log|services)?$/;
const harmless = /^cdn\.(?:provider|zone)$|^cache\.(?:isEnabled|local\b)|^queue\.(?:partitions|outboxBytesMax)$/;

function showValue(keys: readonly PropertyKey[], value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === "string") {
    const path = pathOf(keys);
    return mayBeSecret.test(path) && !harmless.test(path) ? "another text" : showText(value);
  }
  return typeof value === "number" || typeof value === "boolean" ? String(value) : `a value of type ${typeof value}`;
}

/** Names of settings are words; anything else may be a value in a key's place. */
function showName(key: string): string {
  return /^[A-Za-z_][\w-]{0,40}$/.test(key) ? key : "(a name that is no word)";
}

function whatWasMeant(keys: readonly PropertyKey[], name: string): string {
  const isNamed = (keys[0] === "regions" || keys[0] === "services") && keys.length > 1;
  const path = isNamed ? pathOf([`${String(keys[0])}{}`, ...keys.slice(2)]) : pathOf(keys);
  const group = path.replaceAll(/\[\d+\]/g, "[]");
  const siblings = knownNames.get(group) ?? [];
  const sibling = nearestName(name, siblings);
  if (sibling !== undefined) return `did you mean ${joinPath(pathOf(keys), sibling)}?`;
  const elsewhere = [...knownNames].find(([, names]) => names.includes(name));
  if (elsewhere !== undefined) return `did you mean ${joinPath(elsewhere[0], name)}?`;
  return `known here: ${siblings.join(", ")}`;
}

function valueAt(content: unknown, keys: readonly PropertyKey[]): unknown {
  let at = content;
  for (const key of keys) {
    at =
      typeof at === "object" && at !== null && Object.hasOwn(at, key)
        ? (at as Record<PropertyKey, unknown>)[key]
        : undefined;
  }
  return at;
}
