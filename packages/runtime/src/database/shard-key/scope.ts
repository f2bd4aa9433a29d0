/**
 * What is known inside one query block: its sources, and which columns hold a key that lives on the query's shard.
 *
 * A column is *tied* when it equals such a key: compared with a value, or equal to a tied column here, in a block around,
 * or in a derived table. With the tie come the values, so that they can be compared with the key the query runs for.
 */
import type { ColumnName, SyntaxNode } from "./syntax-node.ts";

/** Values that a tied column equals; empty when they are checked elsewhere or cannot be told. */
export type KeyValues = readonly unknown[];

/** One output column of a sub-query; `tied` when it can only hold keys of this shard. */
export interface Output {
  readonly name: string | undefined;
  readonly tied: KeyValues | undefined;
}

/** What a sub-query gives. */
export interface Outputs {
  readonly columns: readonly Output[];
  /** Rows made of the query's own parameters, as from `unnest($1)`: each column may serve as a key. */
  readonly isFromValues: boolean;
  /** Whether rows of a sharded table went in. */
  readonly isSharded: boolean;
  /** Whether `*` is among the columns, so that their positions are not known. */
  readonly hasStar: boolean;
}

/** Where rows of a block come from: a declared table with its shard key, or a sub-query. */
export type Source =
  | { readonly kind: "table"; readonly table: string; readonly key: string | undefined }
  | { readonly kind: "rows"; readonly outputs: Outputs };

/** Sources and equalities of one block; those around it are reached through `outer`. */
export class Scope {
  readonly sources = new Map<string, Source>();
  readonly commonTables = new Map<string, Outputs>();
  /** Sub-queries judged in this block already, so that none is judged twice. */
  readonly judged = new Map<SyntaxNode, Outputs>();
  private readonly outer: Scope | undefined;
  private readonly parents = new Map<string, string>();
  private readonly ties = new Map<string, unknown[]>();

  constructor(outer: Scope | undefined) {
    this.outer = outer;
  }

  commonTable(name: string): Outputs | undefined {
    return this.commonTables.get(name) ?? this.outer?.commonTable(name);
  }

  /** Whether this block or one around it reads a sharded table. */
  hasSharded(): boolean {
    for (const source of this.sources.values()) if (isSharded(source)) return true;
    return this.outer?.hasSharded() ?? false;
  }

  /** Full names of the column; without a table it stands for every source that has it as key or output. */
  resolve({ table, column }: ColumnName): string[] {
    if (table !== undefined) return [`${table}.${column}`];
    const found: string[] = [];
    for (const [alias, source] of this.sources) {
      const has =
        source.kind === "table"
          ? source.key === column
          : source.outputs.isFromValues || source.outputs.columns.some((output) => output.name === column);
      if (has) found.push(`${alias}.${column}`);
    }
    return found.length === 0 && this.outer !== undefined ? this.outer.resolve({ table, column }) : found;
  }

  tie(column: string, values: KeyValues): void {
    const root = this.root(column);
    this.ties.set(root, [...(this.ties.get(root) ?? []), ...values]);
  }

  join(left: string, right: string): void {
    const [from, to] = [this.root(left), this.root(right)];
    if (from === to) return;
    this.parents.set(from, to);
    const values = this.ties.get(from);
    if (values !== undefined) this.tie(to, values);
  }

  /** Values the column is tied to, or undefined when it is not tied. */
  tiedTo(column: string): KeyValues | undefined {
    const found: KeyValues[] = [];
    for (const member of this.membersOf(column)) {
      const values = this.tiedAtSource(member);
      if (values !== undefined) found.push(values);
    }
    const own = this.ties.get(this.root(column));
    if (own !== undefined) found.push(own);
    return found.length === 0 ? undefined : found.flat();
  }

  /** Whether an equality or value speaks of the source, so that a row of nulls in its place would be dropped. */
  speaksOf(alias: string): boolean {
    return [...this.parents]
      .flat()
      .concat([...this.ties.keys()])
      .some((column) => column.startsWith(`${alias}.`));
  }

  /** Whether the column is set equal to one of another source. */
  isJoined(column: string): boolean {
    const alias = column.slice(0, column.indexOf(".") + 1);
    return this.membersOf(column).some((member) => !member.startsWith(alias));
  }

  private tiedAtSource(column: string): KeyValues | undefined {
    const dot = column.indexOf(".");
    const source = this.sources.get(column.slice(0, dot));
    if (source === undefined) return this.outer?.tiedTo(column);
    if (source.kind === "table") return undefined;
    if (source.outputs.isFromValues) return [];
    const name = column.slice(dot + 1);
    return source.outputs.columns.find((output) => output.name === name)?.tied;
  }

  private membersOf(column: string): string[] {
    const root = this.root(column);
    return [root, ...[...this.parents.keys()].filter((member) => this.root(member) === root)];
  }

  private root(column: string): string {
    let at = column;
    for (let up = this.parents.get(at); up !== undefined; up = this.parents.get(at)) at = up;
    return at;
  }
}

/** Whether the source gives rows of a sharded table. */
export function isSharded(source: Source): boolean {
  return source.kind === "table" ? source.key !== undefined : source.outputs.isSharded;
}
