/** Secrets by reference: the topology holds the name of an environment variable, never the value. */
import { inspect } from "node:util";
import { ConfigError } from "../kernel/errors.ts";

/** The environment a secret is read from. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Which address of a list in one variable is meant. */
export interface SecretPart {
  readonly index: number;
  readonly count: number;
}

/** Marks secrets of every copy of this module: a config file may load another copy than the app does. */
const brand = Symbol.for("rungs.secret");

/** A reference to an environment variable. It holds no value, so that however it is printed, none can come out. */
export class Secret {
  readonly variable: string;
  /** Set when the variable lists several addresses. */
  readonly part?: SecretPart;

  constructor(variable: string, part?: SecretPart) {
    this.variable = variable;
    if (part !== undefined) this.part = part;
    Object.freeze(this);
  }

  get [brand](): true {
    return true;
  }

  /** The value, as late as possible. Raises `SECRET_MISSING` when the variable is unset, empty or lists too few. */
  reveal(environment: Environment): string {
    const text = environment[this.variable]?.trim() ?? "";
    const value = this.part === undefined ? text : (splitAddresses(text)[this.part.index] ?? "");
    if (value !== "") return value;
    const missing =
      text === ""
        ? `The environment variable ${this.variable} is not set`
        : `The environment variable ${this.variable} lists fewer than ${(this.part?.index ?? 0) + 1} addresses`;
    throw new ConfigError(
      "SECRET_MISSING",
      `${missing}, but the topology refers to it. Set it, or change the setting that names it.`,
    );
  }

  toString(): string {
    const { variable, part } = this;
    return part === undefined || part.count === 1
      ? `[secret env:${variable}]`
      : `[secret env:${variable} ${part.index + 1}/${part.count}]`;
  }

  toJSON(): string {
    return this.toString();
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/**
 * Refers to an environment variable: `leader: env("DATABASE_URL")`. In JSON write `{ "env": "DATABASE_URL" }`.
 *
 * Raises `CONFIG_INVALID` when the name cannot be one of a variable; a value passed by mistake is not repeated.
 */
export function env(variable: string): Secret {
  if (isVariableName(variable)) return new Secret(variable);
  throw new ConfigError(
    "CONFIG_INVALID",
    'env() takes the name of an environment variable, such as env("DATABASE_URL"): letters, digits and _, not its value.',
  );
}

/** The secret a configured value refers to: a {@link Secret} of any copy of Rungs, or `{ env: NAME }`. */
export function asSecret(value: unknown): Secret | undefined {
  if (value instanceof Secret) return value;
  if (typeof value !== "object" || value === null) return undefined;
  if (brand in value) {
    const { variable, part } = value as Secret;
    return new Secret(variable, part);
  }
  const { env: name, ...rest } = value as { readonly env?: unknown };
  return isVariableName(name) && Object.keys(rest).length === 0 ? new Secret(name) : undefined;
}

/** Cuts a list of addresses at the commas that an address follows; a password may itself hold a comma. */
export function splitAddresses(text: string): string[] {
  return text
    .split(/,(?=\s*[a-z][a-z0-9+.-]*:\/\/)/i)
    .map((address) => address.trim())
    .filter((address) => address !== "");
}

function isVariableName(name: unknown): name is string {
  return typeof name === "string" && /^[A-Za-z_][A-Za-z0-9_]{0,127}$/.test(name);
}
