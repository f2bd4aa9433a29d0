/** Keys of objects: which are allowed. They become paths on disks and in addresses, so nothing else gets through. */
import { ConfigError } from "../kernel/errors.ts";

/** Longest key, and longest part between its slashes: file systems end names at 255 bytes. */
const keyCharactersMax = 512;
const partCharactersMax = 200;

/** Whether a text is a key: see `ObjectStore`. */
export function isObjectKey(text: string): boolean {
  return (
    text.length <= keyCharactersMax &&
    /^[A-Za-z0-9._/-]+$/.test(text) &&
    text.split("/").every((part) => part !== "" && part !== "." && part !== ".." && part.length <= partCharactersMax)
  );
}

/** Raises `STORAGE_KEY_INVALID` for a text that is no key. */
export function checkObjectKey(key: string): void {
  if (isObjectKey(key)) return;
  throw new ConfigError(
    "STORAGE_KEY_INVALID",
    `${JSON.stringify(key.slice(0, 80))} is no key: up to ${keyCharactersMax} of a-z, A-Z, 0-9, ".", "_", "-" and "/", each part 1 to ${partCharactersMax} long and not "." or "..".`,
  );
}

/** Raises `STORAGE_KEY_INVALID` for a prefix with which no key can begin; an empty one is that of all. */
export function checkObjectPrefix(prefix: string): void {
  if (prefix !== "" && !isObjectKey(prefix.endsWith("/") ? prefix.slice(0, -1) : prefix)) checkObjectKey(prefix);
}

/** Raises `CONFIG_INVALID` for a number of objects that `list` does not give at once. */
export function checkListLimit(limit: number): void {
  if (Number.isInteger(limit) && limit >= 1 && limit <= 1_000) return;
  throw new ConfigError("CONFIG_INVALID", `A list of ${limit} objects was asked for; from 1 to 1,000.`);
}
