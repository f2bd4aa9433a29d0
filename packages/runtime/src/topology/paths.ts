/** Topologies as flat lists of settings: `web.port` and its value. */
import { Secret } from "./secret.ts";

/** One setting and its place in the topology. */
export type Setting = readonly [path: string, value: unknown];

/** All settings of a nested value. Lists and secrets count as one value: a source replaces them as a whole. */
export function settingsOf(value: unknown, path = ""): Setting[] {
  if (!isGroup(value)) return value === undefined ? [] : [[path, value]];
  return Object.entries(value).flatMap(([key, item]) => settingsOf(item, joinPath(path, key)));
}

/** As {@link settingsOf}, but lists of groups are opened too: `database.shards[0].leader`. For comparing and showing. */
export function leavesOf(value: unknown, path = ""): Setting[] {
  return settingsOf(value, path).flatMap(([at, item]): Setting[] => {
    if (!Array.isArray(item) || !item.some(isGroup)) {
      return Array.isArray(item) && item.some((entry) => entry instanceof Secret)
        ? item.map((entry, index) => [`${at}[${index}]`, entry])
        : [[at, item]];
    }
    return item.flatMap((entry, index) => leavesOf(entry, `${at}[${index}]`));
  });
}

/** Puts a value at a dotted path into a nested record, making groups on the way. */
export function putSetting(target: Record<string, unknown>, path: string, value: unknown): void {
  const keys = path.split(".");
  const last = keys.pop() ?? "";
  let at = target;
  for (const key of keys) {
    // Own keys only: a region may be named "constructor".
    if (!Object.hasOwn(at, key)) at[key] = {};
    at = at[key] as Record<string, unknown>;
  }
  at[last] = value;
}

/** `database.shards[0].leader` from the keys that lead there. */
export function pathOf(keys: readonly PropertyKey[]): string {
  return keys.reduce<string>(
    (path, key) => (typeof key === "number" ? `${path}[${key}]` : joinPath(path, String(key))),
    "",
  );
}

/** The path of a key in a group. */
export function joinPath(path: string, key: string): string {
  return path === "" ? key : `${path}.${key}`;
}

function isGroup(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Secret);
}
