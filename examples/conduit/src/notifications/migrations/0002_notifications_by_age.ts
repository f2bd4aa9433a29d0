import { defineMigration } from "rungs/database";

export default defineMigration({
  shards: {
    up: "create index notifications_by_age on notifications (created_at);",
    down: "drop index notifications_by_age;",
  },
});
