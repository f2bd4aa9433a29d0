/** The tokens of a PostgreSQL statement, as its manual's chapter 4.1 gives them, with `standard_conforming_strings` on. */

/** One token; white space and comments are none. */
export interface SqlToken {
  /** `word`: an unquoted name or keyword, in lower case. `name`: a quoted one, without its quotes. */
  readonly kind: "word" | "name" | "string" | "number" | "parameter" | "symbol";
  readonly text: string;
}

/**
 * One pattern for all, because trying one after another costs ten times as much. Its groups: what is skipped, the beginning of a
 * comment that nests, that of a dollar quote, and the kinds of tokens; a prefix of another comes behind it.
 */
const letter = String.raw`[A-Za-z_\u0080-\uffff]`;
const pattern = new RegExp(
  [
    String.raw`(\s+|--[^\n\r]*)`,
    String.raw`(\/\*)`,
    String.raw`(\$(?:${letter}[\w\u0080-\uffff]*)?\$)`,
    String.raw`([eE]'(?:[^'\\]|\\[\s\S]|'')*'|(?:[uU]&|[bBxXnN])?'(?:[^']|'')*')`,
    `((?:[uU]&)?"(?:[^"]|"")+")`,
    String.raw`(\$\d+)`,
    String.raw`(${letter}[\w$\u0080-\uffff]*)`,
    String.raw`((?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?)`,
    String.raw`(::|:=|\.\.|[()[\],;:.+\-*\/<>=~!@#%^&|${"`"}?])`,
  ].join("|"),
  "y",
);

/** The tokens of the text; undefined when it holds something that cannot be read, such as a string without an end. */
export function sqlTokens(sql: string): readonly SqlToken[] | undefined {
  const tokens: SqlToken[] = [];
  let at = 0;
  while (at < sql.length) {
    pattern.lastIndex = at;
    const found = pattern.exec(sql);
    if (found === null) return undefined;
    const [text, blank, comment, quote, string, name, parameter, word, number] = found;
    if (quote !== undefined) {
      const end = sql.indexOf(quote, at + quote.length);
      if (end < 0) return undefined;
      tokens.push({ kind: "string", text: sql.slice(at, end + quote.length) });
      at = end + quote.length;
      continue;
    }
    if (comment !== undefined) {
      const end = commentEnd(sql, at);
      if (end === undefined) return undefined;
      at = end;
      continue;
    }
    at += text.length;
    if (blank !== undefined) continue;
    if (word !== undefined) tokens.push({ kind: "word", text: word.toLowerCase() });
    else if (name !== undefined) tokens.push({ kind: "name", text: name.slice(name.indexOf('"') + 1, -1) });
    else if (parameter !== undefined) tokens.push({ kind: "parameter", text });
    else if (number !== undefined) tokens.push({ kind: "number", text });
    else if (string === undefined) tokens.push({ kind: "symbol", text });
    else if (isContinued(tokens.at(-1))) return undefined;
    else tokens.push({ kind: "string", text });
  }
  return tokens;
}

/** Behind the comment that begins there: in PostgreSQL comments nest. */
function commentEnd(sql: string, start: number): number | undefined {
  let depth = 0;
  for (let index = start; index < sql.length - 1; index++) {
    const pair = sql.slice(index, index + 2);
    if (pair !== "/*" && pair !== "*/") continue;
    depth += pair === "/*" ? 1 : -1;
    index++;
    if (depth === 0) return index + 1;
  }
  return undefined;
}

/** The second line of an escape string has backslashes of its own, which the pattern does not know of. */
function isContinued(last: SqlToken | undefined): boolean {
  return last?.kind === "string" && /^e'/i.test(last.text);
}
