/**
 * A query written once with Kysely, compiled once, and run with parameters ever after.
 *
 * Building and compiling a query costs tens of microseconds each time; a statement pays it once, runs as a named
 * prepared statement where the connection allows it, and is checked by the shard-key guard once.
 */
import {
  type Compilable,
  type CompiledQuery,
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
} from "kysely";
import { ConfigError } from "../kernel/errors.ts";

/** Parameters of a statement: values by name. Lists go in as one value: `sql<boolean>\`id = any(${p.ids})\``. */
export type StatementParameters = object;

/** A compiled query that takes parameters `P` and gives rows `R`. Made by {@link statements}. */
export interface Statement<P extends StatementParameters, R> {
  readonly name: string;
  readonly compiled: CompiledQuery<R>;
  /** The values of one execution, in the order of `$1, $2, ...`. */
  bind(parameters: P): unknown[];
}

/** Stands in a compiled query for the parameter of that name. */
export class Placeholder {
  readonly key: string;
  constructor(key: string) {
    this.key = key;
  }
}

/**
 * A maker of statements over tables `T`.
 *
 * `define` is called as `define<P>()(name, build)`: `P` is given by hand, the row type is inferred from the query.
 * Names must be unique in a process and at most 63 bytes: they name the prepared statement in PostgreSQL. Raises
 * `STATEMENT_NAME_TAKEN` when another SQL text has the name, or when more than 10,000 are defined.
 *
 * @example
 * const define = statements<Tables>();
 * const byName = define<{ name: string }>()("user_by_name", (q, p) =>
 *   q.selectFrom("users").select(["id"]).where("name", "=", p.name));
 * const rows = await db.for(id).run(byName, { name: "ann" });
 */
export function statements<T>() {
  return <P extends StatementParameters>() =>
    <R>(name: string, build: (queries: Kysely<T>, parameters: P) => Compilable<R>): Statement<P, R> => {
      if (name === "" || Buffer.byteLength(name) > 63) {
        throw new ConfigError(
          "CONFIG_INVALID",
          `Statement name "${name}" has ${Buffer.byteLength(name)} bytes; PostgreSQL's names have 1 to 63.`,
        );
      }
      const placeholders = new Proxy({}, { get: (_, key) => new Placeholder(String(key)) }) as P;
      const compiled = build(compiler as Kysely<T>, placeholders).compile();
      claimName(name, compiled.sql);
      return { name, compiled, bind: slotsOf<P>(compiled) };
    };
}

/** How to fill a compiled query's parameters, in the order of `$1, $2, ...`. */
export function slotsOf<P extends StatementParameters>(compiled: CompiledQuery): (parameters: P) => unknown[] {
  const slots = compiled.parameters.map((value) => (value instanceof Placeholder ? value.key : { constant: value }));
  return (parameters) => slots.map((slot) => (typeof slot === "string" ? parameters[slot as keyof P] : slot.constant));
}

/** Each connection keeps a prepared statement a name until it closes; more than these are made in a loop by mistake. */
const namesMax = 10_000;

/** SQL of each name in this process. Process-wide because PostgreSQL's prepared statements are found by name alone. */
const sqlOfName = new Map<string, string>();

function claimName(name: string, text: string): void {
  const other = sqlOfName.get(name);
  if (other === text) return;
  if (other !== undefined) {
    throw new ConfigError(
      "STATEMENT_NAME_TAKEN",
      `Two statements are named "${name}" but differ: one is ${shorten(other)}, the other ${shorten(text)}. Rename one.`,
    );
  }
  if (sqlOfName.size >= namesMax) {
    throw new ConfigError(
      "STATEMENT_NAME_TAKEN",
      `Statement "${name}" is one more than the ${namesMax} a process may name. Define statements once, at the top of a file, not in a handler.`,
    );
  }
  sqlOfName.set(name, text);
}

function shorten(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}

/** Kysely without a connection: compiles PostgreSQL's dialect and runs nothing. */
export const compiler = new Kysely<unknown>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: (db) => new PostgresIntrospector(db),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  },
});
