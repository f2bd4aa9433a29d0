/** The key by which all processes of an app sign what they hand to clients: made by the first one, in the home database. */
import { type Random, systemRandom } from "../../kernel/random.ts";
import type { SqlDatabase } from "./database-session-store.ts";

/** The table's migrations, in order, for the home database. */
export const signingKeyMigrations = [
  {
    name: "0001_signing_keys",
    home: {
      up: "create table rungs_signing_keys (name text primary key, secret bytea not null check (octet_length(secret) = 32))",
      down: "drop table rungs_signing_keys",
    },
  },
] as const;

/** The key of that name, 32 bytes; made now unless it is there. A secret: never log it. */
export async function readSigningKey(options: {
  /** Must answer for what was committed last: a leader. */
  readonly database: SqlDatabase;
  /** What is signed by it, e.g. "seen". */
  readonly name: string;
  readonly random?: Random;
}): Promise<Buffer> {
  const { database, name, random = systemRandom } = options;
  // Of several processes that start at once the first one's is kept, and all read that.
  const insert = "insert into rungs_signing_keys (name, secret) values ($1, $2) on conflict (name) do nothing";
  await database.query(undefined, insert, [name, Buffer.from(random.bytes(32))]);
  const select = "select secret from rungs_signing_keys where name = $1";
  const [row] = await database.query<{ readonly secret: Buffer }>(undefined, select, [name]);
  if (row === undefined) throw new Error(`The signing key "${name}" vanished while it was read.`);
  return row.secret;
}

/**
 * All generations of the key of that name, the newest last; the first is made now unless it is there. Their names are "NAME", "NAME.2",
 * "NAME.3" and so on. Secrets: never log them.
 */
export async function readSigningKeys(options: {
  readonly database: SqlDatabase;
  readonly name: string;
  readonly random?: Random;
}): Promise<{ readonly name: string; readonly secret: Buffer }[]> {
  const { database, name } = options;
  const select = "select name, secret from rungs_signing_keys where name = $1 or starts_with(name, $1 || '.')";
  const read = () => database.query<{ readonly name: string; readonly secret: Buffer }>(undefined, select, [name]);
  let rows = await read();
  if (rows.length === 0) {
    await readSigningKey(options);
    rows = await read();
  }
  return rows.toSorted((one, other) => generationOf(one.name) - generationOf(other.name));
}

/** Adds a generation of the key; the old ones stay until somebody deletes their rows. Gives its name. */
export async function addSigningKey(options: {
  readonly database: SqlDatabase;
  readonly name: string;
  readonly random?: Random;
}): Promise<string> {
  const known = await readSigningKeys(options);
  const name = `${options.name}.${generationOf(known.at(-1)?.name ?? options.name) + 1}`;
  await readSigningKey({ ...options, name });
  return name;
}

function generationOf(name: string): number {
  return Number(/\.(\d+)$/.exec(name)?.[1] ?? 1);
}
