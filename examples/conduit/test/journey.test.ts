/** What people do with Conduit over its API, the same at every rung and number of shards. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, client, registered } from "./support/client.ts";
import { type ConduitAtRung, metricSum, startConduitAt, targets } from "./support/rungs.ts";

describe.each(
  targets(
    [
      { shards: 1, cache: "on" },
      { shards: 3, cache: "on" },
      { shards: 3, cache: "off" },
    ],
    { rungs: [4, 5], hasRegions: true },
  ),
)("at $title", (target) => {
  const { shards, processes, isLate } = target;
  let conduit: ConduitAtRung;
  let ann: Client;
  let bob: Client;
  let nobody: Client;

  beforeAll(async () => {
    conduit = await startConduitAt(target);
    nobody = client(conduit.url);
    ann = await conduit.registeredOn(0, "ann");
    bob = await conduit.registeredOn(shards - 1, "bob");
  }, 120_000);
  afterAll(() => conduit?.stop(), 60_000);

  const publish = async (who: Client, title: string, tagList: string[] = []) => {
    const answer = await who.post("/articles", { article: { title, description: "about", body: "text", tagList } });
    expect(answer.status).toBe(201);
    return answer.body.article;
  };
  const listed = async (query: string, who: Client = nobody) => {
    const { status, body } = await who.get(`/articles${query}`);
    expect(status).toBe(200);
    return body as {
      articles: { slug: string; title: string; favorited: boolean; favoritesCount: number }[];
      articlesCount: number;
    };
  };

  describe("accounts", () => {
    it("registers with every field of the user and a token that works", async () => {
      const answer = await nobody.post("/users", {
        user: { username: "cleo", email: "Cleo@Example.com", password: "longenough" },
      });
      expect(answer.status).toBe(201);
      const { token, ...user } = answer.body.user;
      expect(user).toEqual({ username: "cleo", email: "Cleo@Example.com", bio: "", image: "" });
      const current = await client(conduit.url, token).get("/user");
      expect(current.body).toEqual({ user: { ...user, token } });
    });

    it("signs in with the right password only, whatever the case of the address", async () => {
      const right = await nobody.post("/users/login", {
        user: { email: "ANN@example.com", password: "correct horse" },
      });
      expect([right.status, right.body.user.username]).toEqual([200, "ann"]);
      const wrong = await nobody.post("/users/login", { user: { email: "ann@example.com", password: "wrong horse" } });
      const unknown = await nobody.post("/users/login", {
        user: { email: "nobody@example.com", password: "wrong horse" },
      });
      expect([wrong.status, wrong.body]).toEqual([401, { errors: { credentials: ["invalid"] } }]);
      expect([unknown.status, unknown.body]).toEqual([wrong.status, wrong.body]);
    });

    it("refuses a taken username or address, whatever its case", async () => {
      const sameName = await nobody.post("/users", {
        user: { username: "ANN", email: "other@example.com", password: "longenough" },
      });
      expect([sameName.status, sameName.body]).toEqual([422, { errors: { username: ["has already been taken"] } }]);
      const sameEmail = await nobody.post("/users", {
        user: { username: "other", email: "Ann@example.com", password: "longenough" },
      });
      expect([sameEmail.status, sameEmail.body]).toEqual([422, { errors: { email: ["has already been taken"] } }]);
      const freed = await nobody.post("/users", {
        user: { username: "other", email: "other@example.com", password: "longenough" },
      });
      expect(freed.status).toBe(201);
    });

    it("lets exactly one of many concurrent registrations have a name", async () => {
      const answers = await Promise.all(
        Array.from({ length: 12 }, (_, index) =>
          nobody.post("/users", {
            user: { username: "wanted", email: `wanted${index}@example.com`, password: "longenough" },
          }),
        ),
      );
      expect(answers.filter((answer) => answer.status === 201)).toHaveLength(1);
      expect(answers.filter((answer) => answer.status === 422)).toHaveLength(11);
    });

    it("changes the profile, keeps old sessions out after a new password, and frees the old name", async () => {
      const dora = await registered(conduit.url, "dora");
      const second = await nobody.post("/users/login", {
        user: { email: "dora@example.com", password: "correct horse" },
      });
      const changed = await dora.put("/user", {
        user: { username: "dora2", bio: "hello", image: "https://example.com/d.png", password: "another horse" },
      });
      expect(changed.body.user).toMatchObject({
        username: "dora2",
        email: "dora@example.com",
        bio: "hello",
        image: "https://example.com/d.png",
        token: dora.token,
      });
      expect((await client(conduit.url, second.body.user.token).get("/user")).status).toBe(401);
      expect((await nobody.get("/profiles/dora")).status).toBe(404);
      expect((await nobody.get("/profiles/dora2")).body.profile).toEqual({
        username: "dora2",
        bio: "hello",
        image: "https://example.com/d.png",
        following: false,
      });
      const cleared = await dora.put("/user", { user: { bio: null, image: "" } });
      expect(cleared.body.user).toMatchObject({ bio: "", image: "" });
      const successor = await nobody.post("/users", {
        user: { username: "dora", email: "dora3@example.com", password: "longenough" },
      });
      expect(successor.status).toBe(201);
    });

    it("asks for a token where one is needed, and refuses one that opens nothing", async () => {
      for (const path of ["/user", "/articles/feed"]) {
        expect((await nobody.get(path)).body).toEqual({ errors: { token: ["is missing"] } });
        expect((await client(conduit.url, "nonsense").get(path)).status).toBe(401);
      }
      expect((await client(conduit.url, "nonsense").get("/articles")).status).toBe(401);
      expect((await client(conduit.url, "nonsense").get("/tags")).status).toBe(200);
    });
  });

  describe("following", () => {
    it("follows and unfollows, idempotently, and shows it to the follower only", async () => {
      for (const _ of [1, 2]) expect((await ann.post("/profiles/bob/follow")).body.profile.following).toBe(true);
      expect((await ann.get("/profiles/bob")).body.profile.following).toBe(true);
      expect((await bob.get("/profiles/bob")).body.profile.following).toBe(false);
      for (const _ of [1, 2]) expect((await ann.delete("/profiles/bob/follow")).body.profile.following).toBe(false);
      expect((await ann.post("/profiles/missing/follow")).status).toBe(404);
    });

    it("feeds the articles of those one follows, newest first", async () => {
      const eve = await registered(conduit.url, "eve");
      const authors = await Promise.all(["fay", "gus", "hal", "ira"].map((name) => registered(conduit.url, name)));
      expect((await eve.get("/articles/feed")).body).toEqual({ articles: [], articlesCount: 0 });
      const titles: string[] = [];
      for (const [index, author] of authors.entries())
        titles.unshift((await publish(author, `Feed piece ${index}`)).title);
      for (const name of ["fay", "hal", "ira"]) await eve.post(`/profiles/${name}/follow`);
      const feed = (await eve.get("/articles/feed?limit=2")).body;
      expect(feed.articlesCount).toBe(3);
      expect(feed.articles.map((article: { title: string }) => article.title)).toEqual([titles[0], titles[1]]);
      expect(feed.articles[0].author.following).toBe(true);
      const rest = (await eve.get("/articles/feed?limit=2&offset=2")).body;
      expect(rest.articles.map((article: { title: string }) => article.title)).toEqual([titles[3]]);
    });
  });

  describe("articles", () => {
    it("publishes with all fields and reads back the same", async () => {
      const article = await publish(ann, "How to train your dragon", ["dragons", "training"]);
      expect(article).toMatchObject({
        slug: "how-to-train-your-dragon",
        title: "How to train your dragon",
        description: "about",
        body: "text",
        tagList: ["dragons", "training"],
        favorited: false,
        favoritesCount: 0,
        author: { username: "ann", bio: "", image: "", following: false },
      });
      expect(new Date(article.createdAt).toISOString()).toBe(article.createdAt);
      expect((await nobody.get("/articles/how-to-train-your-dragon")).body.article).toEqual(article);
    });

    it("gives articles of one title different slugs, also when published at once", async () => {
      const answers = await Promise.all(
        Array.from({ length: 8 }, (_, index) => publish(index % 2 ? ann : bob, "Same title")),
      );
      expect(new Set(answers.map((article) => article.slug)).size).toBe(8);
      const feed = await publish(ann, "Feed");
      expect(feed.slug).not.toBe("feed");
      expect((await publish(ann, "日本語")).slug).toMatch(/^article/);
    });

    it("lists by tag, author and favourite, in pages that join without gap or overlap", async () => {
      const pat = await registered(conduit.url, "pat");
      const quin = await registered(conduit.url, "quin");
      const slugs: string[] = [];
      for (let index = 0; index < 7; index++)
        slugs.unshift((await publish(index % 2 ? pat : quin, `Paged ${index}`, ["paged"])).slug);
      const pages = await Promise.all([0, 3, 6].map((offset) => listed(`?tag=paged&limit=3&offset=${offset}`)));
      expect(pages.flatMap((page) => page.articles.map((article) => article.slug))).toEqual(slugs);
      expect(pages.map((page) => page.articlesCount)).toEqual([7, 7, 7]);
      expect((await listed("?author=pat")).articlesCount).toBe(3);
      await quin.post(`/articles/${slugs[0]}/favorite`);
      await quin.post(`/articles/${slugs[3]}/favorite`);
      const liked = await listed("?favorited=quin", quin);
      expect(liked.articles.map((article) => article.slug)).toEqual([slugs[0], slugs[3]]);
      expect(liked.articles.every((article) => article.favorited)).toBe(true);
      expect(await listed("?author=missing")).toEqual({ articles: [], articlesCount: 0 });
      expect((await listed("?tag=paged&author=pat&favorited=quin")).articlesCount).toBe(1);
      expect(liked.articles[0]).not.toHaveProperty("body");
    });

    it("shows a writer their own change at once, in every list and through every cache", async () => {
      const article = await publish(ann, "Own write", ["own"]);
      await listed("?tag=own");
      await nobody.get(`/articles/${article.slug}`);
      for (let round = 1; round <= 5; round++) {
        await ann.put(`/articles/${article.slug}`, { article: { description: `round ${round}` } });
        expect((await nobody.get(`/articles/${article.slug}`)).body.article.description).toBe(`round ${round}`);
        expect((await listed("?tag=own")).articles[0]).toMatchObject({ description: `round ${round}` });
        await (round % 2
          ? bob.post(`/articles/${article.slug}/favorite`)
          : bob.delete(`/articles/${article.slug}/favorite`));
        expect((await listed("?tag=own")).articles[0]?.favoritesCount).toBe(round % 2);
      }
    });

    it("gives a new title a new slug and lets the old one lead there", async () => {
      const article = await publish(ann, "Old words");
      const renamed = (
        await ann.put(`/articles/${article.slug}`, { article: { title: "New words", tagList: ["renamed"] } })
      ).body.article;
      expect(renamed).toMatchObject({ slug: "new-words", title: "New words", body: "text", tagList: ["renamed"] });
      expect((await nobody.get("/articles/old-words")).body.article.slug).toBe("new-words");
      expect((await listed("?tag=renamed")).articlesCount).toBe(1);
    });

    it("lets only the author change or delete an article", async () => {
      const { slug } = await publish(ann, "Mine alone");
      for (const who of [bob, nobody]) {
        const status = who === bob ? 403 : 401;
        expect((await who.put(`/articles/${slug}`, { article: { body: "stolen" } })).status).toBe(status);
        expect((await who.delete(`/articles/${slug}`)).status).toBe(status);
      }
      expect((await ann.delete(`/articles/${slug}`)).status).toBe(204);
      expect((await nobody.get(`/articles/${slug}`)).body).toEqual({ errors: { article: ["not found"] } });
      expect((await ann.delete(`/articles/${slug}`)).status).toBe(404);
      expect((await publish(bob, "Mine alone")).slug).toBe(slug);
    });

    it("counts favourites exactly when many like and unlike at once", async () => {
      const { slug } = await publish(ann, "Much liked");
      const fans = await Promise.all(Array.from({ length: 6 }, (_, index) => registered(conduit.url, `fan${index}`)));
      await Promise.all(
        fans.flatMap((fan) => [fan.post(`/articles/${slug}/favorite`), fan.post(`/articles/${slug}/favorite`)]),
      );
      expect((await nobody.get(`/articles/${slug}`)).body.article.favoritesCount).toBe(6);
      const last = await fans[0]?.delete(`/articles/${slug}/favorite`);
      expect(last?.body.article).toMatchObject({ favorited: false, favoritesCount: 5 });
      expect((await fans[1]?.get(`/articles/${slug}`))?.body.article.favorited).toBe(true);
      expect((await bob.post("/articles/missing/favorite")).status).toBe(404);
    });

    it("lists the tags in use, most used first", async () => {
      for (let index = 0; index < 9; index++)
        await publish(
          index % 2 ? ann : bob,
          `Tagged ${index}`,
          index < 8 ? ["very-common", "common"] : ["very-common"],
        );
      const { tags } = (await nobody.get("/tags")).body;
      expect(tags.slice(0, 2)).toEqual(["very-common", "common"]);
    });
  });

  describe("comments", () => {
    it("are added, listed newest first with the viewer's view of their writers, and deleted by their writers only", async () => {
      const { slug } = await publish(ann, "Talk about it");
      const first = (await bob.post(`/articles/${slug}/comments`, { comment: { body: "first" } })).body.comment;
      const second = (await ann.post(`/articles/${slug}/comments`, { comment: { body: "second" } })).body.comment;
      expect(Number.isInteger(first.id)).toBe(true);
      expect(first).toMatchObject({ body: "first", author: { username: "bob" } });
      await ann.post("/profiles/bob/follow");
      const list = (await ann.get(`/articles/${slug}/comments`)).body.comments;
      expect(list.map((comment: { body: string }) => comment.body)).toEqual(["second", "first"]);
      expect(list[1].author.following).toBe(true);
      expect((await ann.delete(`/articles/${slug}/comments/${first.id}`)).status).toBe(403);
      expect((await bob.delete(`/articles/${slug}/comments/${first.id}`)).status).toBe(204);
      expect((await bob.delete(`/articles/${slug}/comments/${first.id}`)).status).toBe(404);
      expect((await nobody.get(`/articles/${slug}/comments`)).body.comments).toHaveLength(1);
      expect((await ann.delete(`/articles/${slug}/comments/${second.id}`)).status).toBe(204);
      expect((await nobody.post(`/articles/${slug}/comments`, { comment: { body: "x" } })).status).toBe(401);
      expect((await bob.post("/articles/missing/comments", { comment: { body: "x" } })).status).toBe(404);
      expect((await nobody.get("/articles/missing/comments")).status).toBe(404);
    });
  });

  it("spreads people over the shards and keeps each one's rows together", async () => {
    const names = await Promise.all(
      Array.from({ length: 12 }, async (_, index) => {
        await conduit.registeredOn(index % shards, `spread${index}`);
        return `spread${index}`;
      }),
    );
    const { db } = conduit.app.context;
    const perShard = await db.everywhere(async (shard) => {
      const rows = await shard.selectFrom("users").select("username").where("username", "in", names).execute();
      return [{ people: rows.length }];
    });
    expect(perShard.reduce((sum, { people }) => sum + people, 0)).toBe(12);
    // Twelve people on one of three shards by chance: 3 in 531,441.
    expect(perShard.filter(({ people }) => people > 0).length).toBeGreaterThanOrEqual(Math.min(shards, 2));
  });

  if (processes > 1) {
    it("had all of it answered by every process in turn", async () => {
      // The balancer writes its log once a second.
      await expect
        .poll(async () => Math.min(...(await conduit.requestsByProcess()).values()), { timeout: 5_000 })
        .toBeGreaterThan(20);
      expect((await conduit.requestsByProcess()).size).toBe(processes);
    });
  }

  if (isLate) {
    it("had followers answer, one that was 5 s behind all the time and one that stood still at times", async () => {
      expect(await metricSum(conduit, /^database_reads\{[^}]*role="follower"[^}]*\} (\d+)$/)).toBeGreaterThan(50);
      expect(conduit.lag?.pauses()).toBeGreaterThan(5);
    });
  }
});
