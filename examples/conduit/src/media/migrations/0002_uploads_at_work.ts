import { defineMigration } from "rungs/database";

export default defineMigration({
  shards: {
    up: "create index uploads_at_work on uploads (updated_at) where state = 'processing';",
    down: "drop index uploads_at_work;",
  },
});
