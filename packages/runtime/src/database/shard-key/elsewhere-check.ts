/**
 * Refuses queries on tables of services that have a database of their own, also in production, where nothing else is checked: the
 * tables may still be here, from before, and what they say would be old.
 */
import type { OperationNode } from "kysely";
import type { Statement } from "../statement.ts";
import type { TableRegistry } from "../table-registry.ts";
import { rawUseOf, textOf } from "./raw-sql.ts";
import { isElsewhere } from "./refusal.ts";
import { field, isNode, type SyntaxNode, tableNameOf } from "./syntax-node.ts";

/** Nodes that name no table to read or write: columns, by a table's alias, and values. */
const passedOver = new Set(["ReferenceNode", "ValueNode", "PrimitiveValueListNode"]);

/** Judges what is about to run; see `QueryCheck` for the whole of the rules. */
export class ElsewhereCheck {
  private readonly services: ReadonlyMap<string, string>;
  private readonly judged = new WeakSet<object>();

  private constructor(services: ReadonlyMap<string, string>) {
    this.services = services;
  }

  /** Undefined where all tables are here: then there is nothing to check. */
  static of(tables: TableRegistry): ElsewhereCheck | undefined {
    const services = [...tables].flatMap(([table, declaration]): [string, string][] =>
      "elsewhere" in declaration ? [[table, declaration.elsewhere]] : [],
    );
    return services.length === 0 ? undefined : new ElsewhereCheck(new Map(services));
  }

  /** Raises `TABLE_ELSEWHERE`. */
  query(node: OperationNode): void {
    const common = new Set<string>();
    const named = new Set<string>();
    const visit = (value: unknown): void => {
      if (Array.isArray(value)) for (const item of value) visit(item);
      if (!isNode(value) || passedOver.has(value.kind)) return;
      if (value.kind === "CommonTableExpressionNameNode") common.add(tableNameOf(field(value, "table")) ?? "");
      else if (value.kind === "TableNode") named.add(tableNameOf(value) ?? "");
      else if (value.kind === "RawNode") this.readRaw(value, named);
      for (const child of Object.values(value)) if (typeof child === "object") visit(child);
    };
    visit(node);
    for (const table of named) {
      const service = this.services.get(table);
      if (service !== undefined && !common.has(table)) throw isElsewhere(table, service);
    }
  }

  /** Judges a statement the first time. */
  statement(statement: Pick<Statement<never, unknown>, "compiled">, _parameters: object): void {
    if (this.judged.has(statement)) return;
    this.query(statement.compiled.query);
    this.judged.add(statement);
  }

  private readRaw(raw: SyntaxNode, named: Set<string>): void {
    const { text } = textOf(raw);
    for (const table of this.services.keys()) if (rawUseOf(text, table, undefined) !== "none") named.add(table);
  }
}
