/** JSON schemas of the answers. Fastify compiles them to serialisers, which is faster than JSON.stringify and drops stray fields. */

const text = { type: "string" } as const;

function record<P extends Readonly<Record<string, object>>>(properties: P) {
  return { type: "object", required: Object.keys(properties), properties };
}

const user = record({ email: text, token: text, username: text, bio: text, image: text });
const profile = record({ username: text, bio: text, image: text, following: { type: "boolean" } });
const preview = {
  slug: text,
  title: text,
  description: text,
  tagList: { type: "array", items: text },
  createdAt: text,
  updatedAt: text,
  favorited: { type: "boolean" },
  favoritesCount: { type: "integer" },
  author: profile,
};
const article = record({ ...preview, body: text });
const comment = record({ id: { type: "integer" }, createdAt: text, updatedAt: text, body: text, author: profile });

/** Route options by kind of answer, for the statuses 200 and 201. */
export const answers = {
  user: answer(record({ user })),
  profile: answer(record({ profile })),
  article: answer(record({ article })),
  articles: answer(record({ articles: { type: "array", items: record(preview) }, articlesCount: { type: "integer" } })),
  comment: answer(record({ comment })),
  comments: answer(record({ comments: { type: "array", items: comment } })),
  tags: answer(record({ tags: { type: "array", items: text } })),
};

function answer(schema: object) {
  return { schema: { response: { "2xx": schema } } };
}
