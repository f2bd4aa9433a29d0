/** Events: named, schema-checked messages that services publish and handle. */
import { z } from "zod";
import { ConfigError } from "../kernel/errors.ts";
import type { EventType } from "../kernel/event.ts";

/** An event with its schema. `P`: the payload. */
export interface Event<P> extends EventType<P> {
  /**
   * Reads a stored payload, which an older version of the app may have written: of version `version` of its schema, default the
   * event's own. Raises `EVENT_INVALID`, also for versions that are newer, or too old for the event's upcasts.
   */
  parse(stored: unknown, version?: number): P;
  /** Paths of the payload that people must not read in tools, such as `["card", "token"]`; `*` is any item of a list. */
  readonly sensitive: readonly (readonly string[])[];
}

/** Longest payload in bytes as JSON. A bigger thing belongs into a table or a file, and its id into the message. */
export const payloadBytesMax = 64 * 1_024;

/** How older payloads become newer ones: under each version, what makes a payload of the next one of it. */
export type Upcasts = Readonly<Record<number, (old: never) => unknown>>;

/** What a schema's older versions need. */
export interface EventOptions<U> {
  /** Default 1. To be raised by one with each change that payloads stored before do not fit; at most {@link versionMax}. */
  readonly version?: number;
  /** One for each older version of which there may be messages left, dead letters included, up to the one before `version`. */
  readonly upcasts?: U;
}

/** Highest version of an event. */
const versionMax = 1_000;

/**
 * Each upcast has to give what the next one takes, and the last one what the schema takes; checked up to version 12. The parameter
 * needs its type written down: no one else knows what an older version looked like.
 */
export type ChainedUpcasts<U, Input> = {
  readonly [V in keyof U]: U[V] extends (old: infer Old) => unknown ? (old: Old) => TakenAfter<U, V, Input> : never;
};

type TakenAfter<U, V, Input> = V extends keyof Successors
  ? Successors[V] extends keyof U
    ? U[Successors[V]] extends (old: infer Next) => unknown
      ? Next
      : never
    : Input
  : unknown;

interface Successors {
  readonly 1: 2;
  readonly 2: 3;
  readonly 3: 4;
  readonly 4: 5;
  readonly 5: 6;
  readonly 6: 7;
  readonly 7: 8;
  readonly 8: 9;
  readonly 9: 10;
  readonly 10: 11;
  readonly 11: 12;
}

/**
 * Declares an event. The name is dotted lower-case words, e.g. "article.published". Mark a field that tools must not show
 * by `.meta({ sensitive: true })`. Raises `CONFIG_INVALID` for a name or versions that are none.
 *
 * @example
 * const userFollowed = defineEvent("user.followed", z.object({ followedId: z.uuid(), followerId: z.uuid() }));
 *
 * const orderPlaced = defineEvent("order.placed", z.object({ orderId: z.uuid(), cents: z.int() }), {
 *   version: 2,
 *   upcasts: { 1: (old: { orderId: string; euros: number }) => ({ orderId: old.orderId, cents: Math.round(old.euros * 100) }) },
 * });
 */
export function defineEvent<S extends z.ZodType, const U extends Upcasts = Readonly<Record<never, never>>>(
  name: string,
  schema: S,
  options: EventOptions<U & ChainedUpcasts<U, z.input<S>>> = {},
): Event<z.output<S>> {
  const { version = 1, upcasts = {} } = options;
  checkVersions(name, version, upcasts);
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
    version,
    parse: (stored, from = version) => parse(upcast({ name, version, upcasts }, stored, from)),
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

function checkVersions(name: string, version: number, upcasts: Upcasts): void {
  const problem = (what: string) => new ConfigError("CONFIG_INVALID", `Event "${name}": ${what}`);
  if (!Number.isInteger(version) || version < 1 || version > versionMax) {
    throw problem(`version ${version} must be a whole number from 1 to ${versionMax}.`);
  }
  const from = Object.keys(upcasts).map(Number);
  const wrong = from.find((each) => !Number.isInteger(each) || each < 1 || each >= version);
  if (wrong !== undefined) {
    throw problem(`its upcast from version ${wrong} leads nowhere, since the event has version ${version}.`);
  }
  const missing =
    from.length === 0 ? undefined : range(Math.min(...from), version).find((each) => !from.includes(each));
  if (missing !== undefined) throw problem(`the upcast from version ${missing} is missing; older ones need it, too.`);
}

/** A stored payload as the event's version has it; not yet checked against the schema. Raises `EVENT_INVALID`. */
function upcast(
  { name, version, upcasts }: { readonly name: string; readonly version: number; readonly upcasts: Upcasts },
  stored: unknown,
  from: number,
): unknown {
  if (from > version) {
    const message = `A payload of "${name}" has version ${from}; this process knows versions up to ${version}.`;
    throw new ConfigError("EVENT_INVALID", message);
  }
  return range(from, version).reduce((payload, each) => {
    const step = upcasts[each] as ((old: unknown) => unknown) | undefined;
    if (step === undefined) {
      throw new ConfigError(
        "EVENT_INVALID",
        `A payload of "${name}" has version ${from}, of which no upcast leads on.`,
      );
    }
    try {
      return step(payload);
    } catch (cause) {
      // Its message may quote the payload.
      const message = `The upcast of "${name}" from version ${each} failed.`;
      throw new ConfigError("EVENT_INVALID", message, { cause });
    }
  }, stored);
}

function range(from: number, below: number): number[] {
  return Array.from({ length: Math.max(0, below - from) }, (_, index) => from + index);
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
