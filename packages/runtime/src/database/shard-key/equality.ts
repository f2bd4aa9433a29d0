/** What conditions and select lists say about columns: which equal a value, which equal one another. */
import { rawComparisons, rawValues } from "./raw-sql.ts";
import type { KeyValues, Output, Scope } from "./scope.ts";
import {
  columnOf,
  field,
  isNode,
  isQuery,
  nameOf,
  nodes,
  type SyntaxNode,
  tableNameOf,
  unwrap,
} from "./syntax-node.ts";

/** One side of an equality. */
type Operand =
  | { readonly column: NonNullable<ReturnType<typeof columnOf>> }
  | { readonly values: KeyValues }
  | { readonly query: SyntaxNode };

/** Two sides that are equal wherever the condition holds. */
export type Comparison = readonly [Operand, Operand];

/** Equalities in the top-level conjunction of a WHERE or ON; what stands under OR or NOT says nothing for sure. */
export function comparisonsOf(condition: unknown): Comparison[] {
  const node = unwrap(condition);
  if (!isNode(node)) return [];
  switch (node.kind) {
    case "WhereNode":
      return comparisonsOf(node["where"]);
    case "OnNode":
      return comparisonsOf(node["on"]);
    case "AndNode":
      return [...comparisonsOf(node["left"]), ...comparisonsOf(node["right"])];
    case "RawNode":
      return rawComparisons(node);
    case "BinaryOperationNode": {
      const operator = field(node["operator"], "operator");
      if (operator !== "=" && operator !== "in") return [];
      return pairsOf(unwrap(node["leftOperand"]), unwrap(node["rightOperand"]));
    }
    default:
      return [];
  }
}

/** Notes the equalities in the block. `first` gives the values that a sub-query's first column is tied to. */
export function applyComparisons(
  comparisons: readonly Comparison[],
  scope: Scope,
  first: (query: SyntaxNode) => KeyValues | undefined,
): void {
  for (const [left, right] of comparisons) {
    const [a, b] = [sideOf(left, scope, first), sideOf(right, scope, first)];
    if (a === undefined || b === undefined) continue;
    for (const column of a.columns) {
      for (const other of b.columns) scope.join(column, other);
      if (b.values !== undefined) scope.tie(column, b.values);
    }
    if (a.values !== undefined) for (const column of b.columns) scope.tie(column, a.values);
  }
}

/** What the expression's values are; undefined when it is no plain value. Functions of values give values not known. */
export function valuesIn(expression: unknown): KeyValues | undefined {
  const node = unwrap(expression);
  if (!isNode(node)) return undefined;
  switch (node.kind) {
    case "ValueNode":
      return [node["value"]];
    case "PrimitiveValueListNode":
      return node["values"] as readonly unknown[];
    case "CastNode":
      return valuesIn(node["expression"]);
    case "RawNode":
      return rawValues(node);
    case "ValueListNode":
    case "FunctionNode": {
      const parts = nodes(node["values"] ?? node["arguments"]).map(valuesIn);
      if (!parts.every((part) => part !== undefined)) return undefined;
      return node.kind === "ValueListNode" || node["func"] === "any" ? parts.flat() : [];
    }
    default:
      return undefined;
  }
}

/** Output columns of a select list or RETURNING. `first` as in {@link applyComparisons}. */
export function outputsOf(
  selections: readonly SyntaxNode[],
  scope: Scope,
  first: (query: SyntaxNode) => KeyValues | undefined,
): Output[] {
  return selections.flatMap((item) => {
    const selection = item.kind === "SelectionNode" ? item["selection"] : item;
    if (!isNode(selection)) return [];
    if (isStar(selection)) return everyOutput(tableNameOf(selection["table"]), scope);
    const isAliased = selection.kind === "AliasNode";
    const node = unwrap(isAliased ? selection["node"] : selection);
    const name = isAliased ? nameOf(selection["alias"]) : columnOf(node)?.column;
    return [{ name, tied: isQuery(node) ? first(node) : tiedExpression(node, scope) }];
  });
}

/** Whether the select list takes all columns of a source, in an order that is not written in the query. */
export function hasStar(selections: readonly SyntaxNode[]): boolean {
  return selections.some((item) => isStar(item.kind === "SelectionNode" ? item["selection"] : item));
}

/** Values that a column or plain value is tied to; undefined when it may be anything. */
export function tiedExpression(expression: unknown, scope: Scope): KeyValues | undefined {
  const column = columnOf(unwrap(expression));
  if (column === undefined) return valuesIn(expression);
  const [full] = scope.resolve(column);
  return full === undefined ? undefined : scope.tiedTo(full);
}

function isStar(selection: unknown): boolean {
  if (!isNode(selection)) return false;
  return selection.kind === "SelectAllNode" || field(selection["column"], "kind") === "SelectAllNode";
}

function everyOutput(table: string | undefined, scope: Scope): Output[] {
  return [...scope.sources].flatMap(([alias, source]) => {
    if (table !== undefined && table !== alias) return [];
    const names =
      source.kind === "rows"
        ? source.outputs.columns.map(({ name }) => name)
        : source.key === undefined
          ? []
          : [source.key];
    return names.map((name) => ({ name, tied: name === undefined ? undefined : scope.tiedTo(`${alias}.${name}`) }));
  });
}

type Side = { readonly columns: readonly string[]; readonly values: KeyValues | undefined };

function sideOf(operand: Operand, scope: Scope, first: (query: SyntaxNode) => KeyValues | undefined): Side | undefined {
  if ("column" in operand) return { columns: scope.resolve(operand.column), values: undefined };
  const values = "values" in operand ? operand.values : first(operand.query);
  return values === undefined ? undefined : { columns: [], values };
}

function pairsOf(left: unknown, right: unknown): Comparison[] {
  if (isNode(left) && left.kind === "TupleNode") return tuplePairs(nodes(left["values"]), right);
  const [a, b] = [operandOf(left), operandOf(right)];
  return a === undefined || b === undefined ? [] : [[a, b]];
}

/** `(a, b) = (1, 2)` and `(a, b) in ((1, 2), (3, 4))`, column by column. */
function tuplePairs(left: readonly SyntaxNode[], right: unknown): Comparison[] {
  if (!isNode(right)) return [];
  const rows = right.kind === "TupleNode" ? [right] : nodes(right["values"]).map(unwrap).filter(isNode);
  if (rows.length === 0 || !rows.every((row) => row.kind === "TupleNode")) return [];
  return left.flatMap((item, index): Comparison[] => {
    const column = operandOf(unwrap(item));
    const parts = rows.map((row) => operandOf(unwrap(nodes(row["values"])[index])));
    if (column === undefined) return [];
    if (parts.length === 1 && parts[0] !== undefined) return [[column, parts[0]]];
    const values = parts.map((part) => (part !== undefined && "values" in part ? part.values : undefined));
    return values.every((part) => part !== undefined) ? [[column, { values: values.flat() }]] : [];
  });
}

function operandOf(node: unknown): Operand | undefined {
  const column = columnOf(node);
  if (column !== undefined) return { column };
  if (isQuery(node)) return { query: node };
  const values = valuesIn(node);
  return values === undefined ? undefined : { values };
}
