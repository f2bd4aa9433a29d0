import { defineMigration } from "rungs/database";

export default defineMigration({
  shards: {
    up: "alter table uploads add column is_private boolean not null default false;",
    down: "alter table uploads drop column is_private;",
  },
});
