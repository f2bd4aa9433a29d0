import { defineMigration } from "rungs/database";

export default defineMigration({
  shards: {
    up: `
      create table uploads (
        owner_id uuid not null,
        upload_id uuid not null,
        purpose text not null check (purpose in ('avatar', 'image', 'video')),
        name text not null,
        state text not null default 'received' check (state in ('received', 'processing', 'waiting', 'ready', 'failed')),
        progress smallint not null default 0 check (progress between 0 and 100),
        message text,
        size_bytes bigint not null,
        renditions jsonb not null default '[]',
        created_at timestamptz not null,
        updated_at timestamptz not null,
        primary key (owner_id, upload_id)
      );
      create index uploads_waiting on uploads (upload_id) where state = 'waiting';`,
    down: "drop table uploads;",
  },
});
