/**
 * Names that are unique over all shards: a table in the home database that leads from a name to the shard key of its owner.
 *
 * A name and the row that bears it live in two databases, and no transaction spans them. So a name is taken in three steps:
 *
 * 1. `reserve` writes the name as pending, with a reference to the future row. A taken name is refused.
 * 2. The caller writes the row on its shard.
 * 3. `confirm` makes the name final. Only then is the caller's request acknowledged.
 *
 * A caller that dies in between, or while renaming, leaves a name that no row bears. Once the entry is older than
 * `reservationMs` the next caller who wants it asks the shard whether the row exists: if not, the name goes to the asker,
 * provided that nobody touched the entry since it was looked at. Every step of its holder touches it.
 * A caller that slept through its reservation learns so from `confirm`, which raises `NAME_TAKEN`, and must take its row back.
 *
 * Processes remember where names lead. A row that bears a name does not prove that it owns it: its writer may have slept
 * through the reservation. So only confirmed names are remembered, and for half of `reservationMs`: to lose a confirmed name
 * and come to bear it again without owning it takes a reservation that ran out since.
 *
 * Invariant: an acknowledged name leads to its owner's row, and to no other.
 */
import { sql } from "kysely";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { ConflictError } from "../../kernel/errors.ts";
import type { Shard } from "../database.ts";
import type { NamedMigration } from "../migrate.ts";
import { statements } from "../statement.ts";

/** Where a name leads: the shard key of the owner and the id of the thing, which may be the same. */
export interface DirectoryReference {
  readonly key: string;
  readonly id: string;
}

/** One name space of the directory, e.g. usernames. */
export interface Directory {
  /**
   * Takes the name as pending. `isAlive` says whether the present holder's row exists on its shard and bears the name.
   * Raises `NAME_TAKEN`. Reserving the same name for the same reference again is allowed.
   */
  reserve(
    name: string,
    reference: DirectoryReference,
    isAlive: (holder: DirectoryReference) => Promise<boolean>,
  ): Promise<void>;
  /** Makes a reservation final. Raises `NAME_TAKEN` when it had run out and went to another. */
  confirm(name: string, reference: DirectoryReference): Promise<void>;
  /** Frees the name if it still belongs to the reference. */
  release(name: string, reference: DirectoryReference): Promise<void>;
  /** Frees all names of the reference. */
  releaseAll(reference: DirectoryReference): Promise<void>;
  /**
   * Follows the name. `use` looks the thing up on its shard and gives undefined when it is not there.
   *
   * A confirmed reference learned lately is tried first: it is a hint, never an answer, since `use` reads the row itself.
   * When the hint leads nowhere the home database is asked. `use` must therefore check the name when names can change owner.
   */
  follow<R>(name: string, use: (reference: DirectoryReference) => Promise<R | undefined>): Promise<R | undefined>;
}

/** Table of the directory; run as service "rungs_directory" on the home database. */
export const directoryMigrations: readonly NamedMigration[] = [
  {
    name: "0001_directory",
    home: {
      up: `
        create table rungs_directory (
          space text collate "C" not null,
          name text collate "C" not null,
          key text not null,
          id text not null,
          is_confirmed boolean not null default false,
          reserved_at timestamptz not null default clock_timestamp(),
          primary key (space, name)
        );
        create index rungs_directory_by_reference on rungs_directory (space, key, id);`,
      down: "drop table rungs_directory",
    },
  },
];

interface DirectoryTables {
  readonly rungs_directory: {
    space: string;
    name: string;
    key: string;
    id: string;
    is_confirmed: boolean;
    reserved_at: Date;
  };
}

const define = statements<DirectoryTables>();

const findName = define<{ space: string; name: string }>()("rungs_directory_find", (q, p) =>
  q
    .selectFrom("rungs_directory")
    .select(["key", "id", "is_confirmed"])
    .where("space", "=", p.space)
    .where("name", "=", p.name),
);

/** How long a pending name is left alone; by far longer than any request may take. */
const reservationMsDefault = 60_000;
/** References kept per process as hints; about 200 bytes each. */
const hintsMaxDefault = 50_000;

/** Opens one name space. */
export function directory(options: {
  readonly home: Shard<never>;
  readonly space: string;
  /** Default 60,000 ms. */
  readonly reservationMs?: number;
  /** Default 50,000 entries. */
  readonly hintsMax?: number;
  /** Default the machine's. */
  readonly clock?: Clock;
}): Directory {
  const { space, reservationMs = reservationMsDefault } = options;
  const home = options.home as unknown as Shard<DirectoryTables>;
  const hints = new Hints({
    max: options.hintsMax ?? hintsMaxDefault,
    ttlMs: reservationMs / 2,
    clock: options.clock ?? systemClock,
  });

  const at = (name: string) => sql`space = ${space} and name = ${name}`;
  const heldBy = (name: string, reference: DirectoryReference) =>
    sql`${at(name)} and key = ${reference.key} and id = ${reference.id}`;

  /** Writes the reservation unless the name is held; gives whether it now belongs to the reference. */
  async function tryReserve(name: string, reference: DirectoryReference): Promise<boolean> {
    const inserted = await sql`
      insert into rungs_directory (space, name, key, id) values (${space}, ${name}, ${reference.key}, ${reference.id})
      on conflict (space, name) do update set reserved_at = clock_timestamp()
        where rungs_directory.key = excluded.key and rungs_directory.id = excluded.id
      returning name`.execute(home);
    return inserted.rows.length > 0;
  }

  async function takeOverAbandoned(
    name: string,
    reference: DirectoryReference,
    isAlive: (other: DirectoryReference) => Promise<boolean>,
  ): Promise<boolean> {
    const found = await sql<{ key: string; id: string; seen: string }>`
      select key, id, xmin::text as seen from rungs_directory where ${at(name)}
        and reserved_at < clock_timestamp() - ${reservationMs} * interval '1 millisecond'`.execute(home);
    const other = found.rows[0];
    if (other === undefined || (await isAlive(other))) return false;
    // The holder may have written its row and confirmed since we looked: then the entry is another version.
    const taken = await sql`
      update rungs_directory set key = ${reference.key}, id = ${reference.id}, is_confirmed = false,
        reserved_at = clock_timestamp()
      where ${heldBy(name, other)} and xmin::text = ${other.seen}
      returning name`.execute(home);
    return taken.rows.length > 0;
  }

  return {
    async reserve(name, reference, isAlive) {
      if (await tryReserve(name, reference)) return;
      if (await takeOverAbandoned(name, reference, isAlive)) return;
      throw taken(space, name);
    },

    async confirm(name, reference) {
      const askedAtMs = hints.now();
      const confirmed = await sql`
        update rungs_directory set is_confirmed = true, reserved_at = clock_timestamp() where ${heldBy(name, reference)} returning name`.execute(
        home,
      );
      if (confirmed.rows.length === 0) throw taken(space, name);
      hints.set(name, reference, askedAtMs);
    },

    async release(name, reference) {
      hints.delete(name);
      await sql`delete from rungs_directory where ${heldBy(name, reference)}`.execute(home);
    },

    async releaseAll(reference) {
      const gone = await sql<{ name: string }>`
        delete from rungs_directory where space = ${space} and key = ${reference.key} and id = ${reference.id}
        returning name`.execute(home);
      for (const { name } of gone.rows) hints.delete(name);
    },

    async follow(name, use) {
      // PostgreSQL cannot store NUL in text, so no such name exists.
      if (name.includes("\u0000")) return undefined;
      const hint = hints.get(name);
      if (hint !== undefined) {
        const result = await use(hint);
        if (result !== undefined) return result;
      }
      const askedAtMs = hints.now();
      const [found] = await home.run(findName, { space, name });
      if (found === undefined) {
        hints.delete(name);
        return undefined;
      }
      const reference = { key: found.key, id: found.id };
      if (found.is_confirmed) hints.set(name, reference, askedAtMs);
      else hints.delete(name);
      if (hint !== undefined && hint.key === reference.key && hint.id === reference.id) return undefined;
      return use(reference);
    },
  };
}

function taken(space: string, name: string): ConflictError {
  return new ConflictError("NAME_TAKEN", `"${name}" is taken among ${space}. Choose another.`);
}

/** A bounded map that forgets the oldest entry first, and each one after a while. */
class Hints {
  private readonly entries = new Map<string, { readonly reference: DirectoryReference; readonly untilMs: number }>();
  private readonly options: { readonly max: number; readonly ttlMs: number; readonly clock: Clock };

  constructor(options: { readonly max: number; readonly ttlMs: number; readonly clock: Clock }) {
    this.options = options;
  }

  now(): number {
    return this.options.clock.monotonic();
  }

  get(name: string): DirectoryReference | undefined {
    const entry = this.entries.get(name);
    return entry === undefined || entry.untilMs <= this.now() ? undefined : entry.reference;
  }

  /** Its time runs from the moment before the home database was asked. */
  set(name: string, reference: DirectoryReference, askedAtMs: number): void {
    this.entries.delete(name);
    this.entries.set(name, { reference, untilMs: askedAtMs + this.options.ttlMs });
    if (this.entries.size > this.options.max) this.entries.delete(this.entries.keys().next().value as string);
  }

  delete(name: string): void {
    this.entries.delete(name);
  }
}
