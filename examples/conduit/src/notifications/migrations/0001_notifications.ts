import { defineMigration } from "rungs/database";

export default defineMigration({
  shards: {
    up: `
      create table notification_boxes (
        user_id uuid primary key,
        last_number integer not null,
        read_number integer not null default 0
      );
      create table notifications (
        user_id uuid not null,
        number integer not null,
        kind text not null,
        actor_id uuid,
        subject_id text not null,
        details jsonb not null,
        created_at timestamptz not null,
        primary key (user_id, number)
      );
      create unique index notifications_once on notifications (user_id, kind, subject_id, actor_id) nulls not distinct;`,
    down: "drop table notifications; drop table notification_boxes;",
  },
});
