/** `rungs shards`: who owns which keys, how much that is, and how busy each shard is. */
import { type OpenShards, openShards, type ShardLoad, type ShardReport, type ShardsReport } from "rungs/shards";
import { databaseGroups } from "rungs/topology";
import type { Command, CommandContext, Values } from "../command.ts";
import { counted, type Output, plain, shorten } from "../output.ts";
import { wholeNumber } from "../parse.ts";
import { topologyFlags } from "../topology-flags.ts";
import { databasesOf } from "./stack/databases.ts";

const intervalDefault = 1_000;
const intervalMax = 60_000;
const keysDefault = 10;
const keysMax = 1_000;
/** Ranges of keys shown of a shard on a line for people. */
const rangesShownMax = 3;

/** The command. */
export const shards: Command = {
  definition: {
    meta: { name: "shards", description: "Show which shard owns which keys, sizes, heavy keys, skew and load" },
    args: {
      interval: {
        type: "string",
        valueHint: "ms",
        description: `Time over which the load is counted, 0 for none (default ${intervalDefault})`,
      },
      keys: { type: "string", valueHint: "n", description: `Heavy keys shown (default ${keysDefault})` },
      tables: { type: "boolean", description: "Show each table on each shard" },
      ...topologyFlags,
      json: { type: "boolean", description: "Print JSON for programs" },
    },
  },
  examples: [
    ["rungs shards", "placement, sizes, load over a second, and the keys with most rows"],
    ["rungs shards --tables", "with each table on each shard"],
    ["rungs shards --interval 10000 --keys 50", "load over ten seconds, more keys"],
    ["DATABASE_URL=postgres://a/app,postgres://b/app rungs shards --json", "of an app on servers, for programs"],
  ],
  async run(values, context) {
    const intervalMs = wholeNumber(values, { name: "interval", min: 0, max: intervalMax, fallback: intervalDefault });
    const keys = wholeNumber(values, { name: "keys", min: 0, max: keysMax, fallback: keysDefault });
    const { output, signal } = context;
    await withShards(values, context, async ([app, ...services]) => {
      const look = ({ shards }: OpenPlace) => shards.look({ intervalMs, keysMax: keys, signal });
      const report = await look(app);
      const owned: { readonly group: string; readonly report: ShardsReport }[] = [];
      for (const place of services) owned.push({ group: place.group ?? "", report: await look(place) });
      const byGroup = Object.fromEntries(owned.map((each) => [each.group, each.report]));
      output.json(owned.length === 0 ? report : { ...report, services: byGroup });
      show(report, output, values.isSet("tables"));
      for (const each of owned) {
        output.line(`\nDatabase of ${each.group}`);
        show(each.report, output, values.isSet("tables"));
      }
    });
  },
};

/** The app's database, or that which the services of a group own. */
interface OpenPlace {
  readonly group: string | undefined;
  readonly shards: OpenShards;
}

async function withShards(
  values: Values,
  context: CommandContext,
  use: (places: readonly [OpenPlace, ...OpenPlace[]]) => Promise<void>,
): Promise<void> {
  const { signal } = context;
  const { topology, environment } = await databasesOf(values, context);
  const openOf = async (group?: string) => ({ group, shards: await openShards(topology, { environment, group }) });
  const open = [await openOf(), ...(await Promise.all(databaseGroups(topology).map(openOf)))] as const;
  const stopped = Promise.withResolvers<never>();
  const stop = () => stopped.reject(signal.reason);
  signal.addEventListener("abort", stop);
  try {
    signal.throwIfAborted();
    await Promise.race([use(open), stopped.promise]);
  } finally {
    signal.removeEventListener("abort", stop);
    if (!signal.aborted) await Promise.all(open.map(({ shards }) => shards.close()));
  }
}

function show(report: ShardsReport, output: Output, withTables: boolean): void {
  const { placement, changingTo, skew } = report;
  output.line(
    `Placement by ${placement.strategy} over ${counted(placement.shards, "shard")}, epoch ${placement.epoch}`,
  );
  if (changingTo !== null)
    output.line(output.colors.yellow(`A change to epoch ${changingTo} has begun and not ended.`));
  output.line("");
  output.table({
    head: ["SHARD", "STATE", "OWNS", "ROWS", "SIZE", "COMMITS/S", "WRITTEN/S", "READ/S", "HITS", "CONN"],
    right: [3, 4, 5, 6, 7, 8, 9],
    rows: report.shards.map((shard) => rowOf(shard, output)),
  });
  for (const { shard, problem } of report.shards) {
    if (problem !== null) output.line(output.colors.red(`shard ${shard}: ${plain(problem)}`));
  }
  if (withTables) showTables(report.shards, output);
  const parts = [
    ...(skew.rows === null ? [] : [`rows ${skew.rows.toFixed(2)}`]),
    ...(skew.bytes === null ? [] : [`size ${skew.bytes.toFixed(2)}`]),
    ...(skew.commits === null ? [] : [`commits ${skew.commits.toFixed(2)}`]),
  ];
  if (parts.length > 0) output.line(`\nLargest shard to the mean (1 is even): ${parts.join(", ")}`);
  if (report.heavyKeys.length === 0) return;
  output.line("\nKeys with most rows, estimated:");
  output.table({
    head: ["KEY", "TABLE", "SHARD", "ROWS", "OF THE TABLE"],
    right: [2, 3, 4],
    rows: report.heavyKeys.map((key) => [
      shorten(key.key, 40),
      plain(key.table),
      String(key.shard),
      whole(key.rows),
      `${(key.share * 100).toFixed(1)} %`,
    ]),
  });
}

function rowOf(shard: ShardReport, { colors }: Output): string[] {
  const state = shard.state === "up" ? "up" : colors.red(shard.state);
  const isUp = shard.state === "up";
  return [
    String(shard.shard),
    state,
    ownsOf(shard),
    isUp ? whole(shard.rows) : "-",
    isUp ? size(shard.bytes) : "-",
    ...loadOf(shard.load),
  ];
}

function loadOf(load: ShardLoad | null): string[] {
  if (load === null) return ["-", "-", "-", "-", "-"];
  const hits = load.hitRatio === null ? "-" : `${(load.hitRatio * 100).toFixed(1)} %`;
  return [whole(load.commits), whole(load.rowsWritten), whole(load.rowsRead), hits, String(load.connections)];
}

function ownsOf({ ownership, buckets }: ShardReport): string {
  if (ownership === null) return "-";
  if (ownership.strategy === "hash") return `${buckets} of 1,024 buckets`;
  if (ownership.ranges.length === 0) return "nothing";
  const shown = ownership.ranges
    .slice(0, rangesShownMax)
    .map(
      ({ from, to }) => `${from === undefined ? "" : shorten(from, 16)}..${to === undefined ? "" : shorten(to, 16)}`,
    );
  const hidden = ownership.ranges.length - shown.length;
  return shown.join(", ") + (hidden > 0 ? ` and ${hidden} more` : "");
}

function showTables(reports: readonly ShardReport[], output: Output): void {
  output.line("");
  output.table({
    head: ["TABLE", "KEY", "SHARD", "ROWS", "SIZE"],
    right: [2, 3, 4],
    rows: reports
      .flatMap(({ shard, tables }) => tables.map((table) => ({ shard, ...table })))
      .sort((a, b) => (a.table < b.table ? -1 : a.table > b.table ? 1 : a.shard - b.shard))
      .map(({ shard, table, key, rows, bytes }) => [
        plain(table),
        plain(key ?? "-"),
        String(shard),
        whole(rows),
        size(bytes),
      ]),
  });
}

function whole(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Bytes for people: "812 KiB", "1.2 GiB". */
function size(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const power = bytes < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  const value = bytes / 1_024 ** power;
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${units[power]}`;
}
