/** Secrets by reference: the topology holds the name of an environment variable, never the value. */
import { inspect } from "node:util";
import { ConfigError } from "../kernel/errors.ts";

/** The environment a secret is read from. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** A reference to an environment variable. However it is printed, its value stays out. */
export class Secret {
  readonly variable: string;

  constructor(variable: string) {
    this.variable = variable;
  }

  /** The value. Raises `SECRET_MISSING` when the variable is not set. */
  reveal(environment: Environment): string {
    const value = environment[this.variable];
    if (value !== undefined && value !== "") return value;
    throw new ConfigError("SECRET_MISSING", `The environment variable ${this.variable} is not set, but the topology refers to it. Set it, or change the topology.`);
  }

  toString(): string {
    return `[secret env:${this.variable}]`;
  }

  toJSON(): { readonly env: string } {
    return { env: this.variable };
  }

  [inspect.custom](): string {
    return this.toString();
  }
}

/** Refers to an environment variable: `leader: env("DATABASE_URL")`. In JSON write `{ "env": "DATABASE_URL" }`. */
export function env(variable: string): Secret {
  return new Secret(variable);
}
