/** Reading Kysely's syntax tree without tying ourselves to each of its node types. */
import type { OperationNode } from "kysely";

/** A node of Kysely's syntax tree with its fields open to look at. */
export type SyntaxNode = OperationNode & Readonly<Record<string, unknown>>;

/** A column as a query names it; `table` is the alias or name before the dot. */
export interface ColumnName {
  readonly table: string | undefined;
  readonly column: string;
}

/** Whether the value is a node. */
export function isNode(value: unknown): value is SyntaxNode {
  return typeof value === "object" && value !== null && typeof (value as { kind?: unknown }).kind === "string";
}

/** The field of an object, or undefined. */
export function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

/** The nodes of a list; none when it is no list. */
export function nodes(value: unknown): SyntaxNode[] {
  return Array.isArray(value) ? value.filter(isNode) : [];
}

/** Name of an IdentifierNode. */
export function nameOf(identifier: unknown): string | undefined {
  const name = field(identifier, "name");
  return typeof name === "string" ? name : undefined;
}

/** Name of a TableNode, without its schema. */
export function tableNameOf(table: unknown): string | undefined {
  return nameOf(field(field(table, "table"), "identifier"));
}

/** Column that a ReferenceNode or ColumnNode names. */
export function columnOf(node: unknown): ColumnName | undefined {
  if (!isNode(node)) return undefined;
  if (node.kind === "ColumnNode") {
    const column = nameOf(node["column"]);
    return column === undefined ? undefined : { table: undefined, column };
  }
  if (node.kind !== "ReferenceNode") return undefined;
  const column = columnOf(node["column"])?.column;
  return column === undefined ? undefined : { table: tableNameOf(node["table"]), column };
}

/** The node inside parentheses and inside raw SQL that adds nothing to it, as `sql.ref` and `sql.table` do. */
export function unwrap(node: unknown): unknown {
  if (!isNode(node)) return node;
  if (node.kind === "ParensNode") return unwrap(node["node"]);
  if (node.kind !== "RawNode") return node;
  const fragments = node["sqlFragments"] as readonly string[];
  const parameters = nodes(node["parameters"]);
  return parameters.length === 1 && fragments.every((text) => text.trim() === "") ? unwrap(parameters[0]) : node;
}

const queryKinds = new Set([
  "SelectQueryNode",
  "InsertQueryNode",
  "UpdateQueryNode",
  "DeleteQueryNode",
  "MergeQueryNode",
]);

/** Whether the node is a whole query or sub-query. */
export function isQuery(value: unknown): value is SyntaxNode {
  return isNode(value) && queryKinds.has(value.kind);
}
