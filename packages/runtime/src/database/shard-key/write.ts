/** Writes: inserts give the shard key of every row, nothing changes it, and no merge reaches the rows of all keys. */
import { tiedExpression } from "./equality.ts";
import * as refuse from "./refusal.ts";
import type { KeyValues, Outputs, Scope } from "./scope.ts";
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

/** The block a write stands in. */
export interface WriteContext {
  readonly scope: Scope;
  readonly isEverywhere: boolean;
  /** What the query that an insert reads from gives. */
  judge(source: SyntaxNode): Outputs;
}

interface Target {
  readonly alias: string;
  readonly table: string;
  readonly key: string;
}

/** Raises `SHARD_KEY_MISSING` when the query writes what it must not; gives the keys it inserts. */
export function checkWrite(query: SyntaxNode, context: WriteContext): KeyValues {
  const target = targetOf(query["into"] ?? query["table"], context.scope);
  if (target === undefined) return [];
  switch (query.kind) {
    case "InsertQueryNode":
      return checkInsert(query, target, context);
    case "UpdateQueryNode":
      refuseMove(query["updates"], target);
      return [];
    case "MergeQueryNode":
      return nodes(query["whens"]).flatMap((when) => checkWhen(when, target, context));
    default:
      return [];
  }
}

/** The written table, if it is a sharded one. */
function targetOf(place: unknown, scope: Scope): Target | undefined {
  const alias = isNode(place) && place.kind === "AliasNode" ? nameOf(place["alias"]) : tableNameOf(place);
  const source = alias === undefined ? undefined : scope.sources.get(alias);
  if (alias === undefined || source?.kind !== "table" || source.key === undefined) return undefined;
  return { alias, table: source.table, key: source.key };
}

function checkInsert(insert: SyntaxNode, target: Target, { scope, isEverywhere, judge }: WriteContext): KeyValues {
  const { alias, table, key } = target;
  const index = nodes(insert["columns"]).findIndex((node) => columnOf(node)?.column === key);
  if (index === -1) throw refuse.missingInInsert(table, key);
  refuseMove(field(insert["onConflict"], "updates"), target);
  const from = unwrap(insert["values"]);
  let values: KeyValues | undefined;
  if (isQuery(from)) {
    const outputs = judge(from);
    values = (outputs.hasStar ? outputs.columns.find(({ name }) => name === key) : outputs.columns[index])?.tied;
  } else {
    if (isEverywhere) throw refuse.insertedEverywhere(table);
    values = insertedValues(from, index, scope);
  }
  if (values === undefined) throw refuse.missingInInsert(table, key);
  // What RETURNING gives of the key is tied by the insert itself.
  scope.tie(`${alias}.${key}`, []);
  return values;
}

function checkWhen(when: SyntaxNode, target: Target, context: WriteContext): KeyValues {
  const condition = when["condition"];
  const matched = field(condition, "kind") === "AndNode" ? field(condition, "left") : condition;
  if (field(matched, "bySource") === true) throw refuse.mergedBySource(target.table);
  const result = when["result"];
  if (!isNode(result)) return [];
  if (result.kind === "InsertQueryNode") return checkInsert(result, target, context);
  refuseMove(result["updates"], target);
  return [];
}

function refuseMove(updates: unknown, { table, key }: Target): void {
  if (nodes(updates).some((update) => columnOf(update["column"])?.column === key)) throw refuse.movedRow(table, key);
}

/** What the rows of an insert give for one column; undefined when a row's is not told or comes from an untied column. */
function insertedValues(from: unknown, index: number, scope: Scope): KeyValues | undefined {
  // A merge gives one list, an insert one a row.
  const rows = isNode(from) && from.kind === "ValuesNode" ? nodes(from["values"]) : nodes([from]);
  const found: unknown[] = [];
  for (const row of rows) {
    const item: unknown = (row["values"] as readonly unknown[] | undefined)?.[index];
    if (row.kind === "PrimitiveValueListNode") {
      found.push(item);
      continue;
    }
    const values = tiedExpression(item, scope);
    if (values === undefined) return undefined;
    found.push(...values);
  }
  return rows.length === 0 ? undefined : found;
}
