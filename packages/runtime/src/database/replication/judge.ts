/**
 * Whether a statement may run on a follower, judged by its tokens. When in doubt it may not: the leader can do everything.
 *
 * A statement may when it begins with SELECT, WITH or VALUES, names nothing that writes or locks, and calls only functions
 * of PostgreSQL that are known to change nothing. What hides in a view, an operator or the input function of a type is not
 * seen; such a statement is refused by the follower itself with 25006, and {@link neverOnFollower} remembers it.
 */
import { type SqlToken, sqlTokens } from "./sql-tokens.ts";

/** Texts judged so far; the oldest goes when there are this many. An app has hundreds, times the lengths of its lists. */
const judgedMax = 5_000;
/** Longer texts are judged each time: they would fill the memory. */
const judgedCharactersMax = 20_000;

const judged = new Map<string, boolean>();

/** Whether the statement only reads, and reads what followers have as well. */
export function mayRunOnFollower(sql: string): boolean {
  const known = judged.get(sql);
  if (known !== undefined) return known;
  const verdict = judge(sql);
  remember(sql, verdict);
  return verdict;
}

/** A follower refused the statement as one that writes: it goes to the leader from now on. */
export function neverOnFollower(sql: string): void {
  remember(sql, false);
}

function remember(sql: string, verdict: boolean): void {
  if (sql.length > judgedCharactersMax) return;
  if (judged.size >= judgedMax) judged.delete(judged.keys().next().value as string);
  judged.set(sql, verdict);
}

function judge(sql: string): boolean {
  const all = sqlTokens(sql);
  if (all === undefined) return false;
  const tokens = all.at(-1)?.text === ";" ? all.slice(0, -1) : all;
  const first = tokens.find((token) => !isSymbol(token, "("));
  if (first?.kind !== "word" || !["select", "with", "values"].includes(first.text)) return false;
  const closing = closingParens(tokens);
  if (closing === undefined) return false;
  const defined = namesOfWith(tokens, closing);
  return tokens.every(
    (token, index) => isHarmless(tokens, index) && (defined.has(index) || isKnownCall(tokens, index, token)),
  );
}

/** Words that write, lock or make something; none of them stands in a plain query. */
const writing = new Set(["insert", "update", "delete", "merge", "into", "call", "returning", "operator", "set", "do"]);

function isHarmless(tokens: readonly SqlToken[], index: number): boolean {
  const token = tokens[index] as SqlToken;
  if (token.kind === "symbol") return token.text !== ";";
  if (token.kind !== "word" && token.kind !== "name") return true;
  // Each server has its own settings, locks and statistics, and they are asked of the leader.
  if (token.text.startsWith("pg_") || token.text === "information_schema") return false;
  if (token.kind === "name") return true;
  const before = tokens[index - 1];
  if (token.text === "share") return before?.text !== "for" && before?.text !== "key";
  // A column of that name behind its table is none of these.
  return !writing.has(token.text) || isSymbol(before, ".");
}

/** True for anything but a call of a function that is not known to be harmless. */
function isKnownCall(tokens: readonly SqlToken[], index: number, token: SqlToken): boolean {
  if (!isSymbol(tokens[index + 1], "(")) return true;
  if (token.kind === "parameter" || token.kind === "number" || token.kind === "string") return false;
  if (token.kind === "symbol") return true;
  const before = tokens[index - 1];
  // An alias with columns, `as k(id)`, or the type of a cast, `as numeric(10, 2)`, `::numeric(10, 2)`.
  if (before?.kind === "word" && before.text === "as") return true;
  if (isSymbol(before, "::")) return true;
  if (isSymbol(before, ".")) return false;
  return token.kind === "word"
    ? beforeParens.has(token.text) || harmlessFunctions.has(token.text)
    : harmlessFunctions.has(token.text);
}

/** Where each opening parenthesis is closed, by index; undefined when they do not match. */
function closingParens(tokens: readonly SqlToken[]): ReadonlyMap<number, number> | undefined {
  const closing = new Map<number, number>();
  const open: number[] = [];
  for (const [index, token] of tokens.entries()) {
    if (isSymbol(token, "(")) open.push(index);
    else if (isSymbol(token, ")")) {
      const start = open.pop();
      if (start === undefined) return undefined;
      closing.set(start, index);
    }
  }
  return open.length === 0 ? closing : undefined;
}

/** Where the queries of a WITH are named: `with k(id) as (...)` looks like a call and is none. */
function namesOfWith(tokens: readonly SqlToken[], closing: ReadonlyMap<number, number>): ReadonlySet<number> {
  const names = new Set<number>();
  for (const [start, token] of tokens.entries()) {
    if (token.kind !== "word" || token.text !== "with") continue;
    let at = start + 1;
    if (isWord(tokens[at], "recursive")) at++;
    for (;;) {
      const name = at++;
      if (isSymbol(tokens[at], "(")) at = (closing.get(at) ?? tokens.length) + 1;
      if (!isWord(tokens[at++], "as")) break;
      names.add(name);
      if (isWord(tokens[at], "not")) at++;
      if (isWord(tokens[at], "materialized")) at++;
      at = (closing.get(at) ?? tokens.length) + 1;
      if (!isSymbol(tokens[at], ",")) break;
      at++;
    }
  }
  return names;
}

function isSymbol(token: SqlToken | undefined, text: string): boolean {
  return token?.kind === "symbol" && token.text === text;
}

function isWord(token: SqlToken | undefined, text: string): boolean {
  return token?.kind === "word" && token.text === text;
}

function wordsOf(text: string): ReadonlySet<string> {
  return new Set(text.trim().split(/\s+/));
}

/** Keywords that may stand before a parenthesis without being a call; those that look like calls only compute. */
const beforeParens = wordsOf(`
  all and any array as asc between by case cast coalesce cube desc distinct else end except exists extract fetch filter
  first from greatest group grouping having ilike in inner intersect interval is join lateral least left like limit
  materialized next normalize not nullif offset on or order outer over overlay partition position recursive right rollup
  row rows select sets similar some substring then to treat trim union using values varying when where window with
  within zone varchar char character numeric decimal float time timestamp bit
`);

/**
 * Functions of PostgreSQL that neither write, nor lock, nor tell of this one server. Those that give a new value at each call
 * (`random`, `clock_timestamp`) are harmless too. A test asks a server that all others are immutable or stable.
 */
export const harmlessFunctions = wordsOf(`
  abs ceil ceiling degrees div exp factorial floor gcd lcm ln log log10 mod pi power radians round sign sqrt cbrt trunc
  width_bucket acos asin atan atan2 cos cot sin tan random
  ascii bit_length btrim char_length character_length chr concat concat_ws decode encode format initcap left length lower
  lpad ltrim md5 octet_length overlay position quote_ident quote_literal quote_nullable regexp_count regexp_instr
  regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table regexp_substr repeat
  replace reverse right rpad rtrim sha224 sha256 sha384 sha512 split_part starts_with string_to_array string_to_table
  strpos substr substring to_hex translate trim upper normalize convert_from convert_to get_byte get_bit
  age clock_timestamp date_bin date_part date_trunc extract isfinite justify_days justify_hours justify_interval make_date
  make_interval make_time make_timestamp make_timestamptz now statement_timestamp transaction_timestamp timezone to_char
  to_date to_number to_timestamp
  array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions
  array_prepend array_remove array_replace array_to_string array_upper cardinality unnest generate_series
  generate_subscripts
  array_agg avg bit_and bit_or bool_and bool_or corr count covar_pop covar_samp every json_agg json_object_agg jsonb_agg
  jsonb_object_agg max min range_agg regr_slope regr_intercept regr_count regr_r2 stddev stddev_pop stddev_samp string_agg
  sum var_pop var_samp variance mode percentile_cont percentile_disc
  row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value
  to_json to_jsonb array_to_json row_to_json json_build_array json_build_object json_object jsonb_build_array
  jsonb_build_object jsonb_object json_array_elements json_array_elements_text json_array_length json_each json_each_text
  json_extract_path json_extract_path_text json_object_keys json_populate_record json_populate_recordset json_strip_nulls
  json_to_record json_to_recordset json_typeof jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_each
  jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object_keys jsonb_path_exists
  jsonb_path_match jsonb_path_query jsonb_path_query_array jsonb_path_query_first jsonb_populate_record
  jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset
  jsonb_typeof
  to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_rank ts_rank_cd ts_headline setweight
  numnode querytree strip tsvector_to_array array_to_tsvector ts_delete ts_filter
  int4range int8range numrange tsrange tstzrange daterange isempty lower_inc upper_inc lower_inf upper_inf range_merge
  num_nonnulls num_nulls gen_random_uuid hashtext hashtextextended uuid_hash uuid_hash_extended hashint4 hashint8
  hashint8extended satisfies_hash_partition host hostmask masklen netmask network broadcast family abbrev text
  date float4 float8 int2 int4 int8 timestamptz
`);
