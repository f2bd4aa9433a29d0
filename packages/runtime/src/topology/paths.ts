/** Topologies as flat lists of settings: `web.port` and its value. */
import { isDeepStrictEqual } from "node:util";
import { Secret } from "./secret.ts";

/** One setting and its place in the topology. */
export type Setting = readonly [path: string, value: unknown];

/** All settings of a nested value; lists and secrets count as one value. */
export function settingsOf(value: unknown, path = ""): Setting[] {
  const isGroup = typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Secret);
  if (!isGroup) return value === undefined ? [] : [[path, value]];
  return Object.entries(value).flatMap(([key, item]) => settingsOf(item, path === "" ? key : `${path}.${key}`));
}

/** What differs between two topologies, by path. */
export function diffTopologies(from: object, to: object): { readonly path: string; readonly from: unknown; readonly to: unknown }[] {
  const before = new Map(settingsOf(from));
  const after = new Map(settingsOf(to));
  return [...new Set([...before.keys(), ...after.keys()])]
    .filter((path) => !isDeepStrictEqual(before.get(path), after.get(path)))
    .sort()
    .map((path) => ({ path, from: before.get(path), to: after.get(path) }));
}

/** Puts a value at a path into a nested record, making groups on the way. */
export function putSetting(target: Record<string, unknown>, path: string, value: unknown): void {
  const keys = path.split(".");
  const last = keys.pop() as string;
  let at = target;
  for (const key of keys) at = (at[key] ??= {}) as Record<string, unknown>;
  at[last] = value;
}
