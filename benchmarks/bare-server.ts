/**
 * Some of Conduit's handlers written by hand on bare Fastify and pg, as a good engineer would for one database:
 * one pool, prepared statements, one join a request, Fastify's own serialisers. The yardstick of `run.ts` and `rung2.ts`.
 *
 * Environment: PORT, and BARE_DATABASE as JSON for pg's Pool.
 */
import { createHash } from "node:crypto";
import Fastify from "fastify";
import pg from "pg";

const pool = new pg.Pool({ ...JSON.parse(process.env["BARE_DATABASE"] ?? "{}"), max: 20 });
const app = Fastify();

const text = { type: "string" } as const;
const preview = {
  slug: text,
  title: text,
  description: text,
  tagList: { type: "array", items: text },
  createdAt: text,
  updatedAt: text,
  favorited: { type: "boolean" },
  favoritesCount: { type: "integer" },
  author: { type: "object", properties: { username: text, bio: text, image: text, following: { type: "boolean" } } },
};
const user = { type: "object", properties: { username: text, email: text, bio: text, image: text, token: text } };
const article = { type: "object", properties: { ...preview, body: text } };
const answer = (properties: object) => ({ schema: { response: { 200: { type: "object", properties } } } });

const columns = `a.slug, a.title, a.description, a.tag_list, a.favorites_count, a.created_at, a.updated_at,
  u.username, u.bio, u.image,
  exists (select 1 from favorites f where f.author_id = a.author_id and f.article_id = a.article_id and f.user_id = $1) as favorited,
  exists (select 1 from follows f where f.followed_id = a.author_id and f.follower_id = $1) as following`;

// biome-ignore lint/suspicious/noExplicitAny: rows of hand-written SQL.
function previewOf(row: any) {
  return {
    slug: row.slug,
    title: row.title,
    description: row.description,
    tagList: row.tag_list,
    createdAt: row.created_at.toISOString(),
    updatedAt: row.updated_at.toISOString(),
    favorited: row.favorited,
    favoritesCount: row.favorites_count,
    author: { username: row.username, bio: row.bio, image: row.image, following: row.following },
  };
}

async function viewerOf(authorization: string | undefined): Promise<string | null> {
  if (authorization === undefined) return null;
  const hash = createHash("sha256").update(authorization.slice("Token ".length)).digest();
  const found = await pool.query({
    name: "session",
    text: "select user_id from rungs_sessions where token_hash = $1 and expires_at > now()",
    values: [hash],
  });
  return found.rows[0]?.user_id ?? null;
}

app.get<{ Params: { slug: string } }>("/api/articles/:slug", answer({ article }), async (request, reply) => {
  const viewer = await viewerOf(request.headers.authorization);
  const found = await pool.query({
    name: "article",
    text: `select ${columns}, a.body from articles a join users u on u.user_id = a.author_id where a.slug = $2`,
    values: [viewer, request.params.slug],
  });
  const row = found.rows[0];
  if (row === undefined) return reply.code(404).send({ errors: { article: ["not found"] } });
  return { article: { ...previewOf(row), body: row.body } };
});

app.get<{ Querystring: { limit?: string; offset?: string } }>(
  "/api/articles",
  answer({
    articles: { type: "array", items: { type: "object", properties: preview } },
    articlesCount: { type: "integer" },
  }),
  async (request) => {
    const viewer = await viewerOf(request.headers.authorization);
    const [page, count] = await Promise.all([
      pool.query({
        name: "articles",
        text: `select ${columns} from articles a join users u on u.user_id = a.author_id
          order by a.created_at desc, a.article_id desc limit $2 offset $3`,
        values: [viewer, Number(request.query.limit ?? 20), Number(request.query.offset ?? 0)],
      }),
      pool.query({ name: "articles_count", text: "select count(*)::int as articles from articles" }),
    ]);
    return { articles: page.rows.map(previewOf), articlesCount: count.rows[0].articles };
  },
);

app.post<{ Params: { slug: string } }>("/api/articles/:slug/favorite", answer({ article }), async (request, reply) => {
  const viewer = await viewerOf(request.headers.authorization);
  if (viewer === null) return reply.code(401).send({ errors: { token: ["is missing"] } });
  const found = await pool.query({
    name: "favorite",
    text: `with changed as (
        insert into favorites (author_id, article_id, user_id, created_at)
        select author_id, article_id, $1, now() from articles where slug = $2
        on conflict do nothing returning author_id, article_id
      ), counted as (
        update articles a set favorites_count = favorites_count + 1 from changed c
        where a.author_id = c.author_id and a.article_id = c.article_id returning favorites_count
      )
      select ${columns}, a.body, (select favorites_count from counted) as new_count
      from articles a join users u on u.user_id = a.author_id where a.slug = $2`,
    values: [viewer, request.params.slug],
  });
  const row = found.rows[0];
  if (row === undefined) return reply.code(404).send({ errors: { article: ["not found"] } });
  const favoritesCount = row.new_count ?? row.favorites_count;
  return { article: { ...previewOf({ ...row, favorited: true }), favoritesCount, body: row.body } };
});

app.get<{ Params: object }>("/api/user", answer({ user }), async (request, reply) => {
  const viewer = await viewerOf(request.headers.authorization);
  if (viewer === null) return reply.code(401).send({ errors: { token: ["is missing"] } });
  const found = await pool.query({
    name: "user",
    text: "select username, email, bio, image from users where user_id = $1",
    values: [viewer],
  });
  return { user: { ...found.rows[0], token: request.headers.authorization?.slice("Token ".length) } };
});

await app.listen({ port: Number(process.env["PORT"] ?? 0), host: "127.0.0.1" });
process.send?.({ port: (app.server.address() as { port: number }).port });
process.on("disconnect", () => process.exit(0));
