/** Finds and reads the config file. */
import { access, readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ConfigError, RungsError } from "../kernel/errors.ts";

/** Looked for in this order. */
export const configFileNames = ["rungs.config.ts", "rungs.config.mjs", "rungs.config.js", "rungs.config.json"] as const;

/** What a config file exports, unchecked, and its name as given. */
export interface ConfigFile {
  readonly name: string;
  readonly content: unknown;
}

/**
 * Reads the named file, or the first of {@link configFileNames} in `folder`; undefined when there is none of these.
 *
 * Raises `CONFIG_FILE_UNREADABLE` when the file is missing, broken or exports no default. Neither the message nor the
 * cause repeats a line of the file, which may hold a secret in the wrong place.
 */
export async function loadConfigFile(folder: string, name?: string): Promise<ConfigFile | undefined> {
  const found = name ?? (await firstExisting(folder));
  if (found === undefined) return undefined;
  const path = resolve(folder, found);
  if (!(await exists(path))) throw unreadable(found, `there is no file ${path}.`);
  return {
    name: found,
    content: path.endsWith(".json") ? await readJson(found, path) : await importModule(found, path),
  };
}

async function firstExisting(folder: string): Promise<string | undefined> {
  for (const name of configFileNames) if (await exists(resolve(folder, name))) return name;
  return undefined;
}

async function readJson(name: string, path: string): Promise<unknown> {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw unreadable(name, `${codeOf(error)}.`, error);
  });
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ""));
  } catch (error) {
    // The parser's message quotes the text around the mistake, so only the place is taken from it.
    const position = /position (\d+)/.exec(String(error))?.[1];
    const before = position === undefined ? text : text.slice(0, Number(position));
    const line = before.split("\n").length;
    throw unreadable(name, `it is not valid JSON at line ${line}, column ${before.length - before.lastIndexOf("\n")}.`);
  }
}

async function importModule(name: string, path: string): Promise<unknown> {
  let module: { readonly default?: unknown };
  try {
    module = await import(pathToFileURL(path).href);
  } catch (error) {
    if (error instanceof RungsError) throw unreadable(name, error.message, error);
    if (isSyntaxError(error)) {
      const line = lineIn(error, path);
      throw unreadable(
        name,
        `it has a syntax error${line === undefined ? "" : ` at line ${line}`}; run it with node to see it.`,
      );
    }
    if (codeOf(error) === "ERR_MODULE_NOT_FOUND") {
      throw unreadable(name, `a module it imports was not found: ${missingModule(error)}.`);
    }
    throw unreadable(
      name,
      `it raised ${error instanceof Error ? error.name : "an error"} when imported; run it with node to see it.`,
    );
  }
  if (module.default !== undefined) return module.default;
  throw unreadable(name, "it has no default export. Write `export default defineTopology({ ... })`.");
}

/** TypeScript that cannot be stripped is told by code, JavaScript by class; both quote the source in their message. */
function isSyntaxError(error: unknown): error is Error {
  return error instanceof Error && (error.name === "SyntaxError" || /TYPESCRIPT/.test(codeOf(error)));
}

function lineIn(error: Error, path: string): string | undefined {
  const stack = error.stack ?? "";
  const at = stack.indexOf(`${path}:`);
  return at === -1 ? undefined : /^\d+/.exec(stack.slice(at + path.length + 1))?.[0];
}

function missingModule(error: unknown): string {
  return /Cannot find (?:package|module) '([^']+)'/.exec(String(error))?.[1] ?? "its name is unknown";
}

function codeOf(error: unknown): string {
  const code = (error as { readonly code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "it could not be read";
}

function unreadable(name: string, reason: string, cause?: unknown): ConfigError {
  return new ConfigError("CONFIG_FILE_UNREADABLE", `The config file ${name} could not be read: ${reason}`, { cause });
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
