/** What the seed tool remembers: which chunks are written, so that a run that was cut off goes on where it stopped. */
import type { NamedMigration } from "rungs/database";

export const seedMigrations: readonly NamedMigration[] = [
  {
    name: "0001_seed_chunks",
    home: {
      up: "create table seed_chunks (run text not null, step text not null, chunk integer not null, primary key (run, step, chunk))",
      down: "drop table seed_chunks",
    },
  },
];
