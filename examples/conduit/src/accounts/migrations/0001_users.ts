import { defineMigration } from "rungs/database";

export default defineMigration({
  shards: {
    up: `
      create table users (
        user_id uuid primary key,
        username text not null,
        username_key text collate "C" not null,
        email text not null,
        email_key text collate "C" not null,
        password_hash text not null,
        bio text not null default '',
        image text not null default '',
        created_at timestamptz not null,
        updated_at timestamptz not null
      );
      create table follows (
        followed_id uuid not null references users,
        follower_id uuid not null,
        created_at timestamptz not null,
        primary key (followed_id, follower_id)
      );
      create index follows_by_follower on follows (follower_id, followed_id);`,
    down: "drop table follows; drop table users;",
  },
});
