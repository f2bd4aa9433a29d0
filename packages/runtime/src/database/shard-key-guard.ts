/**
 * Finds queries that could not be sharded, while there is still one shard.
 *
 * Rule: in a query for one key, each sharded table must be tied to its shard key, by comparing the key column with a
 * value (`=` or `in`), or by an equality with a column that is itself tied, in the same query or in one around it.
 * Inserts must give the key column, updates must leave it alone. Home tables are reached through `db.home` only, sharded ones never through it.
 *
 * The check reads Kysely's syntax tree, so it sees what will run. Raw SQL is judged by its words: a fragment that
 * names a sharded table must name that table's key column too. Runs in development and tests, not in production.
 */
import type { OperationNode } from "kysely";
import { ConfigError } from "../kernel/errors.ts";
import type { TableRegistry } from "./table-registry.ts";

/** How a query reaches the data: for one key, on every shard, or in the home database. */
export type QueryScope = "key" | "everywhere" | "home";

/** Raises `SHARD_KEY_MISSING` or `TABLE_UNDECLARED` when the query breaks the rule above. */
export function guardShardKey(query: OperationNode, scope: QueryScope, tables: TableRegistry): void {
  const guard = new Guard(scope, tables);
  guard.visit(query, undefined);
}

type Node = OperationNode & Readonly<Record<string, unknown>>;

const queryKinds = new Set([
  "SelectQueryNode",
  "InsertQueryNode",
  "UpdateQueryNode",
  "DeleteQueryNode",
  "MergeQueryNode",
]);

/** One query's tables and the columns known equal within it. */
class Scope {
  readonly outer: Scope | undefined;
  /** Alias (or name) to table name; undefined for a common table expression or a derived table. */
  readonly sources = new Map<string, string | undefined>();
  readonly commonTables = new Set<string>();
  private readonly parent = new Map<string, string>();
  private readonly tied = new Set<string>();

  constructor(outer: Scope | undefined) {
    this.outer = outer;
  }

  isCommonTable(name: string): boolean {
    return this.commonTables.has(name) || (this.outer?.isCommonTable(name) ?? false);
  }

  tie(column: string): void {
    this.tied.add(this.root(column));
  }

  join(left: string, right: string): void {
    const from = this.root(left);
    const to = this.root(right);
    if (from === to) return;
    this.parent.set(from, to);
    if (this.tied.has(from)) this.tied.add(to);
  }

  isTied(column: string): boolean {
    const root = this.root(column);
    if (this.tied.has(root)) return true;
    // Equal to a column of the query around this one that is tied there.
    for (const member of this.parent.keys()) {
      if (this.root(member) === root && this.isTiedOutside(member)) return true;
    }
    return this.isTiedOutside(root);
  }

  private isTiedOutside(column: string): boolean {
    const alias = column.slice(0, column.indexOf("."));
    if (this.sources.has(alias)) return this.sources.get(alias) === undefined;
    for (let scope = this.outer; scope !== undefined; scope = scope.outer) {
      if (scope.sources.has(alias)) return scope.sources.get(alias) === undefined || scope.isTied(column);
    }
    return false;
  }

  private root(column: string): string {
    let at = column;
    for (let up = this.parent.get(at); up !== undefined; up = this.parent.get(at)) at = up;
    return at;
  }
}

class Guard {
  private readonly scope: QueryScope;
  private readonly tables: TableRegistry;

  constructor(scope: QueryScope, tables: TableRegistry) {
    this.scope = scope;
    this.tables = tables;
  }

  visit(value: unknown, outer: Scope | undefined): void {
    if (Array.isArray(value)) {
      for (const item of value) this.visit(item, outer);
      return;
    }
    if (!isNode(value)) return;
    if (queryKinds.has(value.kind)) {
      this.visitQuery(value, outer);
      return;
    }
    if (value.kind === "RawNode") this.checkRaw(value);
    for (const child of Object.values(value)) this.visit(child, outer);
  }

  private visitQuery(query: Node, outer: Scope | undefined): void {
    const scope = new Scope(outer);
    for (const expression of nodes(field(query["with"], "expressions"))) {
      const name = identifierOf(field(expression["name"], "table"));
      if (name !== undefined) scope.commonTables.add(name);
    }
    this.collectSources(query, scope);
    collectEqualities(query["where"], scope, this.tables);
    for (const join of nodes(query["joins"])) collectEqualities(join["on"], scope, this.tables);
    for (const [alias, table] of scope.sources) if (table !== undefined) this.checkTable(table, alias, scope, query);
    for (const child of Object.values(query)) this.visit(child, scope);
  }

  private collectSources(query: Node, scope: Scope): void {
    const places = [
      query["into"],
      query["table"],
      ...nodes(field(query["from"], "froms")),
      ...nodes(field(query["using"], "tables")),
      ...nodes(query["joins"]).map((join) => join["table"]),
    ];
    for (const place of places) {
      if (!isNode(place)) continue;
      const source = place.kind === "AliasNode" ? place["node"] : place;
      const table = isNode(source) && source.kind === "TableNode" ? identifierOf(source) : undefined;
      const alias = place.kind === "AliasNode" ? nameOf(place["alias"]) : table;
      if (alias === undefined) continue;
      scope.sources.set(alias, table === undefined || scope.isCommonTable(table) ? undefined : table);
    }
  }

  private checkTable(table: string, alias: string, scope: Scope, query: Node): void {
    const declaration = this.tables.get(table);
    if (declaration === undefined) {
      throw new ConfigError(
        "TABLE_UNDECLARED",
        `Query names table "${table}", which no service declares. ` +
          `Add it to defineService(..., { tables: { ${table}: { shardBy: "..." } } }), or { home: true } for a small global table.`,
      );
    }
    if ("home" in declaration) {
      if (this.scope !== "home")
        throw misplaced(table, "is a home table: use db.home instead of db.for(...) or db.everywhere(...)");
      return;
    }
    if (this.scope === "home")
      throw misplaced(table, `is sharded by "${declaration.shardBy}": use db.for(${declaration.shardBy})`);
    const key = declaration.shardBy;
    if (query.kind === "UpdateQueryNode" && updatesColumn(query, key)) throw movedRow(table, key);
    if (this.scope === "everywhere") return;
    const isInsertTarget = query.kind === "InsertQueryNode" && identifierOf(query["into"]) === table;
    if (isInsertTarget ? insertsColumn(query, key) : scope.isTied(`${alias}.${key}`)) return;
    throw isInsertTarget ? missingInInsert(table, key) : missingInQuery(table, alias, key);
  }

  private checkRaw(raw: Node): void {
    const text = (raw["sqlFragments"] as readonly string[]).join(" ? ");
    for (const [table, declaration] of this.tables) {
      if (!hasWord(text, table) || !/\b(from|join|into|update|using)\b/i.test(text)) continue;
      if ("home" in declaration) {
        if (this.scope !== "home") throw misplaced(table, "is a home table: use db.home for raw SQL on it");
      } else if (this.scope === "home") {
        throw misplaced(
          table,
          `is sharded by "${declaration.shardBy}": use db.for(${declaration.shardBy}) for raw SQL on it`,
        );
      } else if (this.scope === "key" && !hasWord(text, declaration.shardBy)) {
        throw missingInQuery(table, table, declaration.shardBy);
      }
    }
  }
}

/** Reads the top-level conjunction of a WHERE or ON; what stands under OR or NOT ties nothing. */
function collectEqualities(condition: unknown, scope: Scope, tables: TableRegistry): void {
  if (!isNode(condition)) return;
  switch (condition.kind) {
    case "WhereNode":
      collectEqualities(condition["where"], scope, tables);
      return;
    case "OnNode":
      collectEqualities(condition["on"], scope, tables);
      return;
    case "ParensNode":
      collectEqualities(condition["node"], scope, tables);
      return;
    case "AndNode":
      collectEqualities(condition["left"], scope, tables);
      collectEqualities(condition["right"], scope, tables);
      return;
    case "BinaryOperationNode":
      collectComparison(condition, scope, tables);
  }
}

function collectComparison(comparison: Node, scope: Scope, tables: TableRegistry): void {
  const operator = field(comparison["operator"], "operator");
  const left = columnsOf(comparison["leftOperand"], scope, tables);
  const right = columnsOf(comparison["rightOperand"], scope, tables);
  if (operator !== "=" && operator !== "in") return;
  if (left.length > 0 && right.length > 0) {
    for (const a of left) for (const b of right) scope.join(a, b);
    return;
  }
  if (isValue(comparison["rightOperand"])) for (const column of left) scope.tie(column);
  if (isValue(comparison["leftOperand"])) for (const column of right) scope.tie(column);
}

/** A column as "alias.column"; an unqualified one stands for each table of the query whose key has that name. */
function columnsOf(operand: unknown, scope: Scope, tables: TableRegistry): string[] {
  if (!isNode(operand) || operand.kind !== "ReferenceNode") return [];
  const column = nameOf(field(operand["column"], "column"));
  if (column === undefined) return [];
  const table = identifierOf(operand["table"]);
  if (table !== undefined) return [`${table}.${column}`];
  return [...scope.sources]
    .filter(([, name]) => {
      const declaration = name === undefined ? undefined : tables.get(name);
      return declaration !== undefined && "shardBy" in declaration && declaration.shardBy === column;
    })
    .map(([alias]) => `${alias}.${column}`);
}

const valueKinds = new Set([
  "ValueNode",
  "PrimitiveValueListNode",
  "ValueListNode",
  "RawNode",
  "CastNode",
  "SelectQueryNode",
]);

/** A sub-select counts as a value: its own tables are checked where it stands. */
function isValue(operand: unknown): boolean {
  return isNode(operand) && valueKinds.has(operand.kind);
}

function insertsColumn(insert: Node, column: string): boolean {
  return nodes(insert["columns"]).some((node) => nameOf(node["column"]) === column);
}

function updatesColumn(update: Node, column: string): boolean {
  return nodes(update["updates"]).some((node) => nameOf(field(node["column"], "column")) === column);
}

function movedRow(table: string, key: string): ConfigError {
  return new ConfigError(
    "SHARD_KEY_MISSING",
    `Update sets "${key}", the shard key of table "${table}": the row would belong to another shard but stay where it is. ` +
      "Insert it under the new key and delete it under the old one.",
  );
}

function missingInQuery(table: string, alias: string, key: string): ConfigError {
  return new ConfigError(
    "SHARD_KEY_MISSING",
    `Query names the sharded table "${table}" without its shard key "${key}", so it could not run on one shard. ` +
      `Add .where("${alias}.${key}", "=", id), or join "${alias}.${key}" to a column that is tied so; ` +
      `to ask all shards use db.everywhere(...).`,
  );
}

function missingInInsert(table: string, key: string): ConfigError {
  return new ConfigError(
    "SHARD_KEY_MISSING",
    `Insert into the sharded table "${table}" does not give its shard key "${key}". Add "${key}" to the values.`,
  );
}

function misplaced(table: string, what: string): ConfigError {
  return new ConfigError("SHARD_KEY_MISSING", `Table "${table}" ${what}.`);
}

function hasWord(text: string, word: string): boolean {
  return new RegExp(`(^|[^A-Za-z0-9_$])${word.replace(/[^A-Za-z0-9_]/g, "\\$&")}([^A-Za-z0-9_$]|$)`).test(text);
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && typeof (value as { kind?: unknown }).kind === "string";
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function nodes(value: unknown): Node[] {
  return Array.isArray(value) ? value.filter(isNode) : [];
}

function nameOf(identifier: unknown): string | undefined {
  const name = field(identifier, "name");
  return typeof name === "string" ? name : undefined;
}

/** Name of a TableNode. */
function identifierOf(table: unknown): string | undefined {
  return nameOf(field(field(table, "table"), "identifier"));
}
