/**
 * Finds queries that could not be sharded, while there is still one shard.
 *
 * Rules:
 * - *for one key*: each sharded table is tied to its shard key, by comparing the key column with a value (`=`, `in`,
 *   `any`), or by an equality with a column that is itself tied: here, in a query around, in a sub-query's output.
 * - *on every shard*: sharded tables that meet in a query are tied to one another by their keys; else rows on different
 *   shards would not meet.
 * - inserts give the key, updates leave it alone; home tables are reached through `db.home` only, sharded ones never.
 *   Reference tables are read anywhere and written through `db.home`.
 *
 * The check reads Kysely's syntax tree, so it sees what will run. Raw SQL is judged by its words. An ON of an outer join
 * ties only the side it may leave out. Build sub-queries with the expression builder (`eb.selectFrom`): one built from
 * `db.for(...)` is judged alone. Runs in development and tests, not in production.
 */
import type { OperationNode } from "kysely";
import type { TableRegistry } from "../table-registry.ts";
import { applyComparisons, comparisonsOf, hasStar, outputsOf, valuesIn } from "./equality.ts";
import { isLeft, isOuter, type Joined, leftOut } from "./join.ts";
import { rawAlias, rawInserts, rawTableName, rawUseOf, rawWrites, textOf } from "./raw-sql.ts";
import * as refuse from "./refusal.ts";
import { isSharded, type KeyValues, type Outputs, Scope, type Source } from "./scope.ts";
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
import { checkWrite } from "./write.ts";

/** How a query reaches the data: for one key, on every shard, or in the home database. */
export type QueryScope = "key" | "everywhere" | "home";

/**
 * Raises `SHARD_KEY_MISSING`, `TABLE_UNDECLARED` or `TABLE_ELSEWHERE` when the query breaks the rules above. Gives the values that shard
 * keys are compared with or inserted as: in a query for one key, each must be that key.
 */
export function guardShardKey(query: OperationNode, scope: QueryScope, tables: TableRegistry): KeyValues {
  const guard = new Guard(scope, tables);
  guard.visit(query, new Scope(undefined));
  return guard.keyValues;
}

/** A sub-query in FROM or WITH stands alone; one inside an expression must be tied to the block around it. */
type Place = "block" | "expression";

class Guard {
  readonly keyValues: unknown[] = [];
  private readonly scope: QueryScope;
  private readonly tables: TableRegistry;

  constructor(scope: QueryScope, tables: TableRegistry) {
    this.scope = scope;
    this.tables = tables;
  }

  /** Judges every query inside the value. */
  visit(value: unknown, around: Scope): void {
    if (Array.isArray(value)) {
      for (const item of value) this.visit(item, around);
    } else if (isQuery(value)) {
      this.judge(value, around, "expression");
    } else if (isNode(value)) {
      if (value.kind === "RawNode") this.visitRaw(value, around);
      else for (const child of Object.values(value)) this.visit(child, around);
    }
  }

  private visitRaw(raw: SyntaxNode, around: Scope): void {
    this.checkRaw(raw);
    // Raw SQL put into raw SQL was read together with it.
    const inserted = (node: SyntaxNode): SyntaxNode[] =>
      nodes(node["parameters"]).flatMap((item) => (item.kind === "RawNode" ? inserted(item) : [item]));
    this.visit(inserted(raw), around);
  }

  private judge(query: SyntaxNode, around: Scope, place: Place): Outputs {
    const known = around.judged.get(query);
    if (known !== undefined) return known;
    const outputs = this.judgeBlock(query, around, place);
    around.judged.set(query, outputs);
    return outputs;
  }

  private judgeBlock(query: SyntaxNode, around: Scope, place: Place): Outputs {
    const names = new Scope(around);
    this.addCommonTables(query, names);
    const scope = new Scope(names);
    const joined = this.addSources(query, scope);
    const outer = this.applyFacts(query, scope, joined);
    const late = leftOut(outer, scope);
    if (this.scope === "everywhere" && (place === "block" || !around.hasSharded())) this.anchor(scope, late);
    this.judgeLaterals(joined, scope);
    for (const alias of scope.sources.keys()) if (!late.has(alias)) this.checkSource(alias, scope, query);
    for (const { join, aliases } of outer) {
      if (join["joinType"] !== "FullJoin") this.apply(join["on"], scope, true);
      for (const alias of aliases) if (late.delete(alias)) this.checkSource(alias, scope, query);
    }
    for (const alias of late) this.checkSource(alias, scope, query);
    this.checkWrites(query, scope);
    for (const [name, child] of Object.entries(query)) {
      if (name !== "with" && name !== "setOperations") this.visit(child, scope);
    }
    return this.united(query, names, this.giveOutputs(query, scope));
  }

  private addSources(query: SyntaxNode, scope: Scope): Joined[] {
    const places = [
      query["into"],
      query["table"],
      ...nodes(field(query["from"], "froms")),
      ...nodes(field(query["using"], "tables")),
    ];
    for (const item of places) this.addSource(item, scope, false);
    const merged = isNode(query["using"]) && query["using"].kind === "JoinNode" ? [query["using"]] : [];
    return [...nodes(query["joins"]), ...merged].map((join) => ({
      join,
      aliases: this.addSource(join["table"], scope, String(join["joinType"]).startsWith("Lateral")),
    }));
  }

  /** Notes what holds for every row of the block; gives the outer joins, whose ON holds for one side only. */
  private applyFacts(query: SyntaxNode, scope: Scope, joined: readonly Joined[]): Joined[] {
    const conditions = [query["where"], ...joined.filter(({ join }) => !isOuter(join)).map(({ join }) => join["on"])];
    for (const withQueries of [false, true]) for (const each of conditions) this.apply(each, scope, withQueries);
    let outer = joined.filter(({ join }) => isOuter(join));
    // A condition on the side that may be left out drops its rows of nulls: then the join is an inner one.
    for (;;) {
      const inner = outer.filter(({ join, aliases }) => isLeft(join) && aliases.some((alias) => scope.speaksOf(alias)));
      if (inner.length === 0) return outer;
      for (const { join } of inner) this.apply(join["on"], scope, true);
      outer = outer.filter((each) => !inner.includes(each));
    }
  }

  /** A lateral sub-query may lean on all that is known of the block. */
  private judgeLaterals(joined: readonly Joined[], scope: Scope): void {
    for (const { join, aliases } of joined) {
      const table = join["table"];
      const node = unwrap(isNode(table) && table.kind === "AliasNode" ? table["node"] : table);
      const [alias] = aliases;
      if (alias === undefined || scope.sources.get(alias) !== lateralLater || !isQuery(node)) continue;
      scope.sources.set(alias, { kind: "rows", outputs: this.judge(node, scope, "expression") });
    }
  }

  private apply(condition: unknown, scope: Scope, withQueries: boolean): void {
    applyComparisons(comparisonsOf(condition), scope, (query) =>
      withQueries ? firstTied(this.judge(query, scope, "expression")) : undefined,
    );
  }

  private addCommonTables(query: SyntaxNode, names: Scope): void {
    const clause = query["with"];
    for (const expression of nodes(field(clause, "expressions"))) {
      const name = tableNameOf(field(expression["name"], "table"));
      const body = expression["expression"];
      if (name === undefined || !isQuery(body)) continue;
      const columns = nodes(field(expression["name"], "columns")).map((column) => columnOf(column)?.column);
      const renamed = (outputs: Outputs): Outputs => ({
        ...outputs,
        columns: outputs.columns.map((output, index) => ({ ...output, name: columns[index] ?? output.name })),
      });
      if (field(clause, "recursive") === true) names.commonTables.set(name, this.fixpoint(body, names, name, renamed));
      else names.commonTables.set(name, renamed(this.judge(body, names, "block")));
    }
  }

  /** A recursive query's columns are tied if its start ties them and each further step keeps them tied. */
  private fixpoint(body: SyntaxNode, names: Scope, name: string, renamed: (outputs: Outputs) => Outputs): Outputs {
    const { setOperations: _, ...start } = body;
    let outputs = renamed(this.judgeBlock(start as SyntaxNode, names, "block"));
    for (let round = outputs.columns.length; round >= 0; round--) {
      const inside = new Scope(names);
      inside.commonTables.set(name, outputs);
      const next = renamed(this.judgeBlock(body, inside, "block"));
      if (countTied(next) === countTied(outputs)) return next;
      outputs = next;
    }
    return outputs;
  }

  /** Notes a source of the block; gives the aliases it added. */
  private addSource(place: unknown, scope: Scope, isLateral: boolean): string[] {
    if (!isNode(place)) return [];
    const isAliased = place.kind === "AliasNode";
    const node = unwrap(isAliased ? place["node"] : place);
    if (!isNode(node)) return [];
    const table = node.kind === "TableNode" ? tableNameOf(node) : this.declaredName(node);
    const alias = (isAliased ? (nameOf(place["alias"]) ?? rawAlias(place["alias"])) : undefined) ?? table;
    if (alias === undefined) return [];
    scope.sources.set(alias, isLateral ? lateralLater : this.sourceOf(node, table, scope));
    return [alias];
  }

  private sourceOf(node: SyntaxNode, table: string | undefined, scope: Scope): Source {
    if (table !== undefined) {
      const outputs = scope.commonTable(table);
      if (outputs !== undefined) return { kind: "rows", outputs };
      return { kind: "table", table, key: this.keyOf(table) };
    }
    const isFromValues = node.kind === "ValuesNode" || valuesIn(node) !== undefined;
    const opaque: Outputs = { columns: [], isFromValues, isSharded: false, hasStar: false };
    return { kind: "rows", outputs: isQuery(node) ? this.judge(node, scope, "block") : opaque };
  }

  private declaredName(node: SyntaxNode): string | undefined {
    const name = rawTableName(node);
    return name !== undefined && this.tables.has(name) ? name : undefined;
  }

  private keyOf(table: string): string | undefined {
    const declaration = this.tables.get(table);
    if (declaration === undefined) throw refuse.undeclared(table);
    if ("elsewhere" in declaration) throw refuse.isElsewhere(table, declaration.elsewhere);
    return "shardBy" in declaration ? declaration.shardBy : undefined;
  }

  private isReference(table: string): boolean {
    const declaration = this.tables.get(table);
    return declaration !== undefined && "reference" in declaration;
  }

  /** On every shard one sharded source of a block needs no tie: the others are tied to it. */
  private anchor(scope: Scope, late: ReadonlySet<string>): void {
    const tables = [...scope.sources].filter(([, source]) => source.kind === "table" && source.key !== undefined);
    if (tables.some(([alias, source]) => scope.tiedTo(keyColumn(alias, source)) !== undefined)) return;
    const first = tables.find(([alias]) => !late.has(alias));
    if (first !== undefined) scope.tie(keyColumn(...first), []);
  }

  private checkSource(alias: string, scope: Scope, query: SyntaxNode): void {
    const source = scope.sources.get(alias);
    if (source === undefined || this.scope === "home") {
      if (source?.kind === "table" && source.key !== undefined) throw refuse.isSharded(source.table, source.key);
      return;
    }
    if (source.kind === "rows") {
      if (this.scope === "everywhere") this.checkLink(alias, source.outputs, scope);
      return;
    }
    if (source.key === undefined) {
      if (!this.isReference(source.table)) throw refuse.isAtHome(source.table);
      if (writtenTable(query) === source.table) throw refuse.isReferenceCopy(source.table);
      return;
    }
    if (query.kind === "InsertQueryNode" && tableNameOf(query["into"]) === source.table) return;
    const values = scope.tiedTo(keyColumn(alias, source));
    if (values === undefined) {
      throw this.scope === "key"
        ? refuse.missingKey(source.table, alias, source.key)
        : refuse.missingLink(alias, source.key);
    }
    if (this.scope === "key") this.keyValues.push(...values);
  }

  private checkLink(alias: string, outputs: Outputs, scope: Scope): void {
    if (!outputs.isSharded || [...scope.sources.values()].filter(isSharded).length < 2) return;
    const isLinked = outputs.columns.some(
      ({ name, tied }) => tied !== undefined && name !== undefined && scope.isJoined(`${alias}.${name}`),
    );
    if (!isLinked) throw refuse.missingLink(alias, undefined);
  }

  private checkWrites(query: SyntaxNode, scope: Scope): void {
    if (this.scope === "home") return;
    const isEverywhere = this.scope === "everywhere";
    const judge = (source: SyntaxNode) => this.judge(source, scope, "block");
    const inserted = checkWrite(query, { scope, isEverywhere, judge });
    if (!isEverywhere) this.keyValues.push(...inserted);
  }

  private giveOutputs(query: SyntaxNode, scope: Scope): Outputs {
    const selections = nodes(query["selections"] ?? field(query["returning"], "selections"));
    return {
      columns: outputsOf(selections, scope, (inner) => firstTied(this.judge(inner, scope, "expression"))),
      isFromValues: false,
      isSharded: [...scope.sources.values()].some(isSharded),
      hasStar: hasStar(selections),
    };
  }

  /** Joins the outputs of a UNION's parts: a column is tied only if each part ties it. */
  private united(query: SyntaxNode, names: Scope, first: Outputs): Outputs {
    let united = first;
    for (const operation of nodes(query["setOperations"])) {
      const part = unwrap(operation["expression"]);
      if (!isQuery(part)) {
        this.visit(part, names);
        united = { ...united, columns: united.columns.map(({ name }) => ({ name, tied: undefined })) };
        continue;
      }
      const other = this.judge(part, names, "block");
      united = {
        isFromValues: false,
        isSharded: united.isSharded || other.isSharded,
        hasStar: united.hasStar || other.hasStar,
        columns: united.columns.map(({ name, tied }, index) => {
          const also = other.columns[index]?.tied;
          return { name, tied: tied !== undefined && also !== undefined ? [...tied, ...also] : undefined };
        }),
      };
    }
    return united;
  }

  private checkRaw(raw: SyntaxNode): void {
    const { text } = textOf(raw);
    for (const [table, declaration] of this.tables) {
      const key = "shardBy" in declaration ? declaration.shardBy : undefined;
      const use = rawUseOf(text, table, key);
      if (use === "none") continue;
      if ("elsewhere" in declaration) throw refuse.isElsewhere(table, declaration.elsewhere);
      if (key === undefined) {
        if (this.scope === "home") continue;
        if (!this.isReference(table)) throw refuse.isAtHome(table);
        if (rawWrites(text, table)) throw refuse.isReferenceCopy(table);
      } else if (this.scope === "home") {
        throw refuse.isSharded(table, key);
      } else if (use === "moves") {
        throw refuse.movedRow(table, key);
      } else if (this.scope === "key" && use === "keyless") {
        throw refuse.missingKey(table, table, key);
      } else if (this.scope === "everywhere" && rawInserts(text, table)) {
        throw refuse.insertedEverywhere(table);
      }
    }
  }
}

/** The table that an insert, update, delete or merge writes to. */
function writtenTable(query: SyntaxNode): string | undefined {
  const place =
    query["into"] ??
    (query.kind === "UpdateQueryNode" ? query["table"] : undefined) ??
    (query.kind === "DeleteQueryNode" ? nodes(field(query["from"], "froms"))[0] : undefined);
  if (!isNode(place)) return undefined;
  return tableNameOf(place.kind === "AliasNode" ? place["node"] : place);
}

/** Stands for a lateral sub-query until the block's equalities are known. */
const lateralLater: Source = {
  kind: "rows",
  outputs: { columns: [], isFromValues: false, isSharded: false, hasStar: false },
};

/** Values of a sub-query's only column. */
function firstTied(outputs: Outputs): KeyValues | undefined {
  return outputs.hasStar ? undefined : outputs.columns[0]?.tied;
}

function keyColumn(alias: string, source: Source): string {
  return `${alias}.${source.kind === "table" ? source.key : ""}`;
}

function countTied(outputs: Outputs): number {
  return outputs.columns.filter(({ tied }) => tied !== undefined).length;
}
