/** Judging raw SQL by its words: it has no syntax tree, so this asks for the plain ways of writing a shard key. */
import { type ColumnName, columnOf, isNode, nameOf, nodes, type SyntaxNode, tableNameOf } from "./syntax-node.ts";

/** Raw SQL as text; parameter `i` stands as `?i`. Quotes of names, string literals and comments are taken out. */
export interface RawText {
  readonly text: string;
  readonly parameters: readonly unknown[];
}

/** One side of a comparison in raw SQL. */
export type RawOperand = { readonly column: ColumnName } | { readonly values: readonly unknown[] };

/** Text of raw SQL with everything that was put into it, nested raw SQL included. */
export function textOf(raw: SyntaxNode): RawText {
  const parameters: unknown[] = [];
  const render = (node: SyntaxNode): string => {
    const inserted = nodes(node["parameters"]);
    return (node["sqlFragments"] as readonly string[])
      .map((fragment, index) => fragment + (inserted[index] === undefined ? "" : renderInserted(inserted[index])))
      .join("");
  };
  const renderInserted = (node: SyntaxNode): string => {
    if (node.kind === "RawNode") return render(node);
    const column = columnOf(node);
    if (column !== undefined) return column.table === undefined ? column.column : `${column.table}.${column.column}`;
    const name = tableNameOf(node) ?? (node.kind === "IdentifierNode" ? nameOf(node) : undefined);
    if (name !== undefined) return name;
    parameters.push(node.kind === "ValueNode" ? node["value"] : undefined);
    return `?${parameters.length - 1}`;
  };
  const text = render(raw)
    .replace(/--[^\n]*|\/\*[\s\S]*?\*\//g, " ")
    .replace(/'(?:[^']|'')*'/g, "''")
    .replace(/"(\w+)"/g, "$1");
  return { text, parameters };
}

const column = String.raw`(?:(\w+)\.)?([a-z_]\w*)`;
const typeCast = String.raw`(?:\s*::\s*\w+(?:\[\])?)?`;
const value = String.raw`(?:any\s*\(\s*)?\?(\d+)${typeCast}\s*\)?${typeCast}`;
const columnPattern = new RegExp(`^${column}$`, "i");
const valuePattern = new RegExp(`^${value}$`, "i");
const valueListPattern = new RegExp(String.raw`^\(\s*${value}(?:\s*,\s*${value})*\s*\)$`, "i");

/** Equalities that must hold where the raw SQL is true; none when it has an OR or a NOT. */
export function rawComparisons(raw: SyntaxNode): (readonly [RawOperand, RawOperand])[] {
  const { text: written, parameters } = textOf(raw);
  const text = withoutParens(written.trim());
  if (/\b(or|not|case|select)\b/i.test(text)) return [];
  const found: (readonly [RawOperand, RawOperand])[] = [];
  for (const part of text.split(/\band\b/i)) {
    const sides = part.trim().split(/\s*(?<![<>!])=(?!>)\s*|\s+in\s+(?=\()/i);
    const [left, right] = sides.map((side) => rawOperand(side, parameters));
    if (sides.length === 2 && left !== undefined && right !== undefined) found.push([left, right]);
  }
  return found;
}

/** The text without parentheses around the whole of it. */
function withoutParens(text: string): string {
  if (!text.startsWith("(") || !text.endsWith(")")) return text;
  let depth = 0;
  for (const [index, letter] of [...text].entries()) {
    if (letter === "(") depth++;
    else if (letter === ")") depth--;
    if (depth === 0 && index < [...text].length - 1) return text;
  }
  return withoutParens(text.slice(1, -1).trim());
}

/** The column or values that the text is, if it is no more than that. */
function rawOperand(text: string, parameters: readonly unknown[]): RawOperand | undefined {
  const side = text.trim();
  if (valuePattern.test(side) || valueListPattern.test(side)) {
    return { values: [...side.matchAll(/\?(\d+)/g)].map((match) => parameters[Number(match[1])]) };
  }
  const name = columnPattern.exec(side);
  return name?.[2] === undefined ? undefined : { column: { table: name[1], column: name[2] } };
}

/** Values of raw SQL that stands where a value does; undefined when it names anything but functions and types. */
export function rawValues(raw: SyntaxNode): readonly unknown[] | undefined {
  const { text, parameters } = textOf(raw);
  const plain = rawOperand(text, parameters);
  if (plain !== undefined) return "values" in plain ? plain.values : undefined;
  const words = text
    .replace(/\w+\s*(?=\()/g, " ")
    .replace(/(::|\bas\b)\s*\w+(\s*\[\])?/gi, " ")
    .replace(/\?\d+/g, " ");
  return /[a-z_]/i.test(words.replace(/\b(null|true|false|current_timestamp)\b/gi, "")) ? undefined : [];
}

/** How raw SQL uses a table: not at all, without its key, with its key, or changing the key. */
export type RawUse = "none" | "keyless" | "keyed" | "moves";

/** How the text uses the table whose shard key is `key`. */
export function rawUseOf(text: string, table: string, key: string | undefined): RawUse {
  const name = escapeWord(table);
  const list = String.raw`(?:[\w.]+(?:\s+(?:as\s+)?\w+)?\s*,\s*)*`;
  const place = String.raw`\b(?:from\s+${list}|join\s+|into\s+|update\s+|using\s+${list})(?:only\s+|lateral\s+)?(?:\w+\.)?`;
  if (!new RegExp(String.raw`${place}${name}\b(?!\s*[.]|\s*\((?!.*\b(?:values|select)\b))`, "is").test(text))
    return "none";
  if (key === undefined) return "keyed";
  const word = escapeWord(key);
  for (const [, assignments = ""] of text.matchAll(/\bset\b((?:(?!\bwhere\b|\bfrom\b|\breturning\b).)*)/gis)) {
    if (new RegExp(String.raw`(?:^|,)\s*\(?\s*${word}\s*[=,)]`, "i").test(assignments)) return "moves";
  }
  const reference = String.raw`(?<![\w.])(?:\w+\.)?${word}\b`;
  const keyed = [
    String.raw`${reference}\s*(?:=|in\b)`,
    String.raw`=\s*${reference}`,
    String.raw`\([^()]*${reference}[^()]*\)\s*(?:=|in\b)`,
    String.raw`\binto\s+(?:\w+\.)?${name}\s*(?:as\s+\w+\s*)?\([^)]*\b${word}\b[^)]*\)`,
  ];
  return keyed.some((pattern) => new RegExp(pattern, "is").test(text)) ? "keyed" : "keyless";
}

/** Whether raw SQL writes rows of its own making into the table. */
export function rawInserts(text: string, table: string): boolean {
  return new RegExp(String.raw`\binto\s+(?:\w+\.)?${escapeWord(table)}\b[^;]*\bvalues\b`, "is").test(text);
}

/** Whether raw SQL writes to the table at all. */
export function rawWrites(text: string, table: string): boolean {
  const name = escapeWord(table);
  return new RegExp(String.raw`\b(?:into|update|delete\s+from)\s+(?:only\s+)?(?:\w+\.)?${name}\b`, "is").test(text);
}

/** The alias that raw SQL as in `as k(id)` gives. */
export function rawAlias(raw: unknown): string | undefined {
  return isNode(raw) && raw.kind === "RawNode" ? /^\s*(\w+)/.exec(textOf(raw).text)?.[1] : undefined;
}

/** Name of the table when the raw SQL is nothing else. */
export function rawTableName(raw: unknown): string | undefined {
  if (!isNode(raw) || raw.kind !== "RawNode") return undefined;
  return /^\s*(?:\w+\.)?(\w+)\s*$/.exec(textOf(raw).text)?.[1];
}

function escapeWord(word: string): string {
  return word.replace(/[^A-Za-z0-9_]/g, "\\$&");
}
