/** What commands print: tables and lines for people, JSON for programs. */
import Table from "cli-table3";
import pc from "picocolors";

/** Where a command writes, and whether people read it. */
export interface Output {
  /** True with `--json`: stdout then holds JSON and nothing else. */
  readonly isJson: boolean;
  /** True when stdout is a terminal. */
  readonly isTerminal: boolean;
  /** Lines and columns of the terminal; 24 and 80 where there is none. */
  readonly rows: number;
  readonly columns: number;
  /** Colours, or functions that give the text as it is. */
  readonly colors: ReturnType<typeof pc.createColors>;
  /** A line for people; nothing with `--json`. */
  line(text: string): void;
  /** A table for people; nothing with `--json`. Text from outside must have passed {@link plain}. */
  table(table: TableOfText): void;
  /** A value for programs, on one line; nothing without `--json`. Dates are ISO 8601. */
  json(value: unknown): void;
  /** A remark on stderr, which never mixes with the result. */
  remark(text: string): void;
  /** Writes as it is, for cursor movements; only on a terminal. */
  control(sequence: string): void;
}

export interface TableOfText {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Columns to align to the right, by index: numbers. */
  readonly right?: readonly number[];
}

/** The process's streams, or a test's. */
export interface Streams {
  readonly stdout: NodeJS.WritableStream & {
    readonly isTTY?: boolean;
    readonly rows?: number;
    readonly columns?: number;
  };
  readonly stderr: NodeJS.WritableStream;
}

/** Colours appear on a terminal only, and not when NO_COLOR is set (no-color.org) or TERM is "dumb". */
export function createOutput(
  { stdout, stderr }: Streams,
  options: { readonly isJson: boolean; readonly environment: Readonly<Record<string, string | undefined>> },
): Output {
  const { isJson, environment } = options;
  const isTerminal = stdout.isTTY === true;
  const colors = pc.createColors(
    isTerminal && (environment["NO_COLOR"] ?? "") === "" && environment["TERM"] !== "dumb",
  );
  const line = (text: string) => {
    if (!isJson) stdout.write(`${text}\n`);
  };
  return {
    isJson,
    isTerminal,
    rows: stdout.rows ?? 24,
    columns: stdout.columns ?? 80,
    colors,
    line,
    table: (table) => line(tableText(table, colors.dim)),
    json(value) {
      if (isJson) stdout.write(`${JSON.stringify(value)}\n`);
    },
    remark: (text) => void stderr.write(`${text}\n`),
    control(sequence) {
      if (isTerminal && !isJson) stdout.write(sequence);
    },
  };
}

const noChars = Object.fromEntries(
  [
    ...["top", "top-mid", "top-left", "top-right", "bottom", "bottom-mid", "bottom-left", "bottom-right"],
    ...["left", "left-mid", "mid", "mid-mid", "right", "right-mid", "middle"],
  ].map((name) => [name, ""]),
);

function tableText({ head, rows, right = [] }: TableOfText, dim: (text: string) => string): string {
  const table = new Table({
    chars: noChars,
    style: { head: [], border: [], "padding-left": 0, "padding-right": 2 },
    colAligns: head.map((_, index) => (right.includes(index) ? "right" : "left")),
  });
  table.push(
    head.map((text) => dim(text)),
    ...rows.map((row) => [...row]),
  );
  return table
    .toString()
    .split("\n")
    .map((text) => text.trimEnd())
    .join("\n");
}

/**
 * Text from a database on its way to a terminal: on one line and without control characters, which could move the cursor,
 * hide what follows or answer in the user's name.
 */
export function plain(text: string): string {
  return text.replace(/\s+/gu, " ").replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/gu, "\u{FFFD}");
}

/** The text, cut to a number of characters with a mark at the end. */
export function shorten(text: string, charactersMax: number): string {
  const characters = [...plain(text)];
  return characters.length <= charactersMax
    ? characters.join("")
    : `${characters.slice(0, charactersMax - 1).join("")}…`;
}

/** A duration for people: "850 ms", "12 s", "5 min", "3 h", "9 d". */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  const seconds = ms / 1_000;
  if (seconds < 120) return `${Math.floor(seconds)} s`;
  if (seconds < 7_200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3_600)} h` : `${Math.floor(seconds / 86_400)} d`;
}

/** A count with its noun: "1 job", "1,204 jobs". */
export function counted(count: number, noun: string): string {
  return `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
}
