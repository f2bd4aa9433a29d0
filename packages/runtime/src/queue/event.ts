/** Events: named, schema-checked messages that services publish and handle. */
import { z } from "zod";
import { ConfigError } from "../kernel/errors.ts";
import type { EventType } from "../kernel/event.ts";

/** An event with its schema. `P`: the payload. */
export interface Event<P> extends EventType<P> {
  /** Reads a stored payload, which an older version of the app may have written. Raises `EVENT_INVALID`. */
  parse(stored: unknown): P;
  /** Paths of the payload that people must not read in tools, such as `["card", "token"]`; `*` is any item of a list. */
  readonly sensitive: readonly (readonly string[])[];
}

/** Longest payload in bytes as JSON. A bigger thing belongs into a table or a file, and its id into the message. */
export const payloadBytesMax = 64 * 1_024;

/**
 * Declares an event. The name is dotted lower-case words, e.g. "article.published". Mark a field that tools must not show
 * by `.meta({ sensitive: true })`.
 *
 * @example
 * const userFollowed = defineEvent("user.followed", z.object({ followedId: z.uuid(), followerId: z.uuid() }));
 */
export function defineEvent<S extends z.ZodType>(name: string, schema: S): Event<z.output<S>> {
  if (!/^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$/.test(name) || name.length > 100) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `Event name "${name}" must be words of a-z, 0-9 and _ joined by dots, at most 100 characters.`,
    );
  }
  const parse = (value: unknown): z.output<S> => {
    const result = schema.safeParse(value);
    if (result.success) return result.data;
    throw new ConfigError(
      "EVENT_INVALID",
      `The payload of "${name}" does not fit its schema: ${problems(result.error)}.`,
    );
  };
  return {
    name,
    parse,
    check(payload) {
      const parsed = parse(payload);
      const sizeBytes = Buffer.byteLength(JSON.stringify(parsed) ?? "");
      if (sizeBytes <= payloadBytesMax) return parsed;
      throw new ConfigError(
        "EVENT_INVALID",
        `The payload of "${name}" takes ${sizeBytes} bytes; limit ${payloadBytesMax}. Store the data and publish its id.`,
      );
    },
    sensitive: sensitivePaths(schema),
  };
}

/** The payload with what lies at the given paths replaced by "[redacted]". */
export function redact(payload: unknown, paths: readonly (readonly string[])[]): unknown {
  let shown = payload;
  for (const path of paths) shown = redactPath(shown, path);
  return shown;
}

function redactPath(value: unknown, [head, ...rest]: readonly string[]): unknown {
  if (head === undefined) return value === undefined ? undefined : "[redacted]";
  if (Array.isArray(value)) return head === "*" ? value.map((item) => redactPath(item, rest)) : value;
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value);
  return Object.fromEntries(
    entries.map(([name, item]) => [name, head === "*" || head === name ? redactPath(item, rest) : item]),
  );
}

/** Names the fields and what is wrong with them, never their values: a message may hold a secret. */
function problems(error: z.ZodError): string {
  return error.issues.map((issue) => `${issue.path.join(".") || "payload"}: ${issue.code}`).join(", ");
}

/**
 * Walks the schema as JSON Schema, where `.meta()` shows up beside the type. Depth is bounded against recursive schemas:
 * what refers to a part with a sensitive field, further down than that, is sensitive as a whole.
 */
function sensitivePaths(schema: z.ZodType): string[][] {
  const found: string[][] = [];
  const root = z.toJSONSchema(schema, { unrepresentable: "any", cycles: "ref", reused: "inline" }) as Record<
    string,
    unknown
  >;
  const definitions = (root["$defs"] ?? {}) as Readonly<Record<string, unknown>>;
  const walk = (node: unknown, path: string[], references: number): void => {
    if (typeof node !== "object" || node === null) return;
    const part = node as Record<string, unknown>;
    if (part["sensitive"] === true) {
      found.push(path);
      return;
    }
    if (typeof part["$ref"] === "string") {
      if (references >= referencesMax) found.push(path);
      else walk(referred(part["$ref"], root, definitions), path, references + 1);
    }
    for (const [name, item] of Object.entries(part["properties"] ?? {})) walk(item, [...path, name], references);
    if (part["items"] !== undefined) walk(part["items"], [...path, "*"], references);
    if (part["additionalProperties"] !== undefined) walk(part["additionalProperties"], [...path, "*"], references);
    for (const word of ["anyOf", "oneOf", "allOf", "prefixItems"]) {
      for (const item of (part[word] as unknown[] | undefined) ?? []) {
        walk(item, word === "prefixItems" ? [...path, "*"] : path, references);
      }
    }
  };
  if (JSON.stringify(root).includes('"sensitive":true')) walk(root, [], 0);
  return found;
}

/** How often a recursive schema is followed into itself. */
const referencesMax = 4;

/** What `$ref` names: "#" or "#/$defs/name". */
function referred(
  reference: string,
  root: Readonly<Record<string, unknown>>,
  definitions: Readonly<Record<string, unknown>>,
): unknown {
  return reference === "#" ? root : definitions[reference.replace("#/$defs/", "")];
}
