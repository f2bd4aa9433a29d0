/** The shard-key rules applied to what handlers run: in development and tests, never in production. */
import type { OperationNode } from "kysely";
import { ConfigError } from "../../kernel/errors.ts";
import type { Statement } from "../statement.ts";
import { Placeholder } from "../statement.ts";
import type { TableRegistry } from "../table-registry.ts";
import { guardShardKey, type QueryScope } from "./guard.ts";
import type { KeyValues } from "./scope.ts";

type AnyStatement = Pick<Statement<never, unknown>, "name" | "compiled">;

/** Statements judged before, with the values their shard keys are compared with. */
export type JudgedStatements = WeakMap<object, KeyValues>;

/** Judges queries of one scope; with `keys`, also that they ask for no other key than these. */
export class QueryCheck {
  private readonly scope: QueryScope;
  private readonly tables: TableRegistry;
  private readonly judged: JudgedStatements;
  private readonly keys: ReadonlySet<string> | undefined;

  constructor(options: {
    readonly scope: QueryScope;
    readonly tables: TableRegistry;
    readonly judged: JudgedStatements;
    readonly keys?: readonly string[];
  }) {
    this.scope = options.scope;
    this.tables = options.tables;
    this.judged = options.judged;
    this.keys = options.keys === undefined ? undefined : new Set(options.keys.map(comparable));
  }

  /** Judges a query that is about to run. Raises as {@link guardShardKey} does, and `SHARD_KEY_MISMATCH`. */
  query(node: OperationNode): void {
    this.checkKeys(guardShardKey(node, this.scope, this.tables));
  }

  /** Judges a statement the first time, and the keys among its parameters each time. */
  statement(statement: AnyStatement, parameters: object): void {
    let values = this.judged.get(statement);
    if (values === undefined) {
      values = guardShardKey(statement.compiled.query, this.scope, this.tables);
      this.judged.set(statement, values);
    }
    this.checkKeys(
      values.map((value) =>
        value instanceof Placeholder ? (parameters as Readonly<Record<string, unknown>>)[value.key] : value,
      ),
    );
  }

  private checkKeys(values: KeyValues): void {
    const { keys } = this;
    if (keys === undefined) return;
    const others = values
      .flat()
      .filter((value) => value !== undefined && value !== null && !keys.has(comparable(value)));
    if (others.length === 0) return;
    throw new ConfigError(
      "SHARD_KEY_MISMATCH",
      `Query for the shard key ${list([...keys])} names the key ${list([...new Set(others.map(String))])}, whose rows may be on another shard. ` +
        "Ask db.for(...) for the key the query names, or db.byKey(...) for several.",
    );
  }
}

/** UUIDs are the same key in any case. */
function comparable(key: unknown): string {
  const text = String(key);
  return /^[0-9a-f-]{36}$/i.test(text) ? text.toLowerCase() : text;
}

function list(keys: readonly string[]): string {
  const shown = keys.slice(0, 3).map((key) => JSON.stringify(key.slice(0, 80)));
  return shown.join(", ") + (keys.length > 3 ? ` and ${keys.length - 3} more` : "");
}
