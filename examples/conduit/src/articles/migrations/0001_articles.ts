import { defineMigration } from "rungs/database";

export default defineMigration({
  shards: {
    // Free space in each page lets counter updates stay in place (heap-only tuples) beside the article's text.
    up: `
      create table articles (
        author_id uuid not null references users,
        article_id uuid not null,
        slug text collate "C" not null,
        title text not null,
        description text not null,
        body text not null,
        tag_list text[] not null default '{}',
        favorites_count integer not null default 0,
        last_comment_number integer not null default 0,
        created_at timestamptz not null,
        updated_at timestamptz not null,
        primary key (author_id, article_id)
      ) with (fillfactor = 80);
      create index articles_by_date on articles (created_at desc, article_id desc);
      create index articles_by_author on articles (author_id, created_at desc, article_id desc);
      create table article_tags (
        author_id uuid not null,
        article_id uuid not null,
        tag text collate "C" not null,
        primary key (author_id, article_id, tag),
        foreign key (author_id, article_id) references articles on delete cascade
      );
      create index article_tags_by_tag on article_tags (tag, author_id, article_id);
      create table favorites (
        author_id uuid not null,
        article_id uuid not null,
        user_id uuid not null,
        created_at timestamptz not null,
        primary key (author_id, article_id, user_id),
        foreign key (author_id, article_id) references articles on delete cascade
      );
      create index favorites_by_user on favorites (user_id, author_id, article_id);
      create table comments (
        author_id uuid not null,
        article_id uuid not null,
        number integer not null,
        commenter_id uuid not null,
        body text not null,
        created_at timestamptz not null,
        updated_at timestamptz not null,
        primary key (author_id, article_id, number),
        foreign key (author_id, article_id) references articles on delete cascade
      );`,
    down: "drop table comments; drop table favorites; drop table article_tags; drop table articles;",
  },
});
