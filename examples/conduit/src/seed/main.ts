/** Fills Conduit with a generated network: `npm run seed -- --people 10000`. Works beside a running app. */
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { sql } from "kysely";
import { pino } from "pino";
import { ConfigError, createLifecycle, defineService } from "rungs";
import { type OpenDatabases, openDatabases } from "rungs/app";
import { createPasswords } from "rungs/session";
import { loadConfigFile, resolveTopology } from "rungs/topology";
import conduit from "../app.ts";
import { runCommand } from "../command.ts";
import type { Tables } from "../schema.ts";
import { seedMigrations } from "./migrations.ts";
import { createNetwork, type Network, parseEdges } from "./network.ts";
import { progressLine } from "./progress.ts";
import { type Chunk, seedWriter } from "./writer.ts";

const help = `Usage: npm run seed -- [flags]

  --people N     how many people (default 1000)
  --graph FILE   take the ties from an edge list, two person numbers a line; overrides --people
  --seed N       another number gives other people (default 1); the same number always the same
  --until DATE   date of the newest article (default 2026-11-01)
  --dir FOLDER   where the data lives (env RUNGS_DIR; default .rungs)
  --shards N     embedded databases (env RUNGS_SHARDS; default 1)

A run that was cut off goes on where it stopped when started again with the same flags.`;

/** What every generated person signs in with. It guards made-up data only. */
const password = "password";
const chunkPeople = 200;

interface Flags {
  readonly network: Network;
  readonly run: string;
  readonly topologyFlags: { readonly dir?: string; readonly shards?: string };
}

async function main(): Promise<void> {
  const { values } = parse();
  if (values.help === true) return void process.stdout.write(`${help}\n`);
  const { network, run, topologyFlags } = await networkOf(values);
  const file = await loadConfigFile(process.cwd());
  const { topology } = resolveTopology({
    ...(file === undefined ? {} : { file }),
    environment: process.env,
    flags: topologyFlags,
  });
  const log = pino({ level: "warn" }, pino.destination(2));
  const lifecycle = createLifecycle({ log });
  // A cut-off run must not leave a server behind; the chunk under way is written again next time.
  const interrupt = () => void lifecycle.stop().then(() => process.exit(130));
  process.once("SIGINT", interrupt).once("SIGTERM", interrupt);
  try {
    const seed = defineService<Tables>("seed", { tables: { seed_chunks: { home: true } }, migrations: seedMigrations });
    const definition = { ...conduit, services: [...conduit.services, seed] };
    await writeAll(await openDatabases(definition, { topology, log, attach: true }, lifecycle), network, run);
  } finally {
    await lifecycle.stop();
  }
}

async function writeAll(databases: OpenDatabases<Tables>, network: Network, run: string): Promise<void> {
  const writer = seedWriter(databases, network, await createPasswords().hash(password));
  const chunks: Chunk[] = [];
  for (let from = 0; from < network.people; from += chunkPeople)
    chunks.push({ from, to: Math.min(network.people, from + chunkPeople) });
  for (const step of ["people", "follows", "articles", "reads"] as const) {
    const progress = progressLine({ title: step, total: network.people });
    const done = await doneChunks(databases, run, step);
    for (const [index, chunk] of chunks.entries()) {
      if (!done.has(index)) {
        await writer[step](chunk);
        await sql`insert into seed_chunks (run, step, chunk) values (${run}, ${step}, ${index}) on conflict do nothing`.execute(
          databases.home.kysely,
        );
      }
      progress.advance(chunk.to - chunk.from);
    }
    progress.end();
  }
  process.stdout.write("counting marks ...\n");
  await writer.countMarks();
  const { email } = network.person(0);
  process.stdout.write(`\n${network.people} people are there. Sign in as ${email} with the password "${password}".\n`);
}

async function doneChunks({ home }: OpenDatabases<Tables>, run: string, step: string): Promise<Set<number>> {
  const { rows } = await sql<{
    chunk: number;
  }>`select chunk from seed_chunks where run = ${run} and step = ${step}`.execute(home.kysely);
  return new Set(rows.map((row) => row.chunk));
}

function parse() {
  const text = { type: "string" as const };
  try {
    return parseArgs({
      options: {
        people: text,
        graph: text,
        seed: text,
        until: text,
        dir: text,
        shards: text,
        help: { type: "boolean", short: "h" },
      },
    });
  } catch (error) {
    throw new ConfigError("CONFIG_INVALID", `${error instanceof Error ? error.message : String(error)}\n\n${help}`);
  }
}

async function networkOf(values: ReturnType<typeof parse>["values"]): Promise<Flags> {
  const seed = wholeNumber("--seed", values.seed ?? "1", 0, 2 ** 31);
  const untilMs = Date.parse(values.until ?? "2026-11-01");
  if (Number.isNaN(untilMs))
    throw new ConfigError("CONFIG_INVALID", `--until: expected a date such as 2026-11-01, found "${values.until}".`);
  const graph = values.graph === undefined ? undefined : await readGraph(values.graph);
  const people = graph?.people ?? wholeNumber("--people", values.people ?? "1000", 1, 5_000_000);
  const network = createNetwork({ people, seed, untilMs, ...(graph === undefined ? {} : { ties: graph.ties }) });
  const run = JSON.stringify([people, seed, untilMs, graph?.ties.length ?? 0]);
  const topologyFlags = {
    ...(values.dir === undefined ? {} : { dir: values.dir }),
    ...(values.shards === undefined ? {} : { shards: values.shards }),
  };
  return { network, run, topologyFlags };
}

async function readGraph(path: string) {
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new ConfigError(
      "CONFIG_FILE_UNREADABLE",
      `--graph: ${path} could not be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  });
  const graph = parseEdges(text);
  if (graph.ties.length === 0)
    throw new ConfigError("CONFIG_INVALID", `--graph: ${path} holds no line with two person numbers.`);
  return graph;
}

function wholeNumber(flag: string, text: string, min: number, max: number): number {
  const value = /^\d{1,10}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= min && value <= max) return value;
  throw new ConfigError("CONFIG_INVALID", `${flag}: expected a whole number from ${min} to ${max}, found "${text}".`);
}

await runCommand(main);
