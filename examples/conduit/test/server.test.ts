/** Conduit on a PostgreSQL server of the system, by DATABASE_URL, as in production: one shard, and two. */
import { globSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { startTestPostgres, type TestPostgres } from "@rungs/contract/test-postgres";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { client, registered } from "./support/client.ts";
import { spawnConduit } from "./support/process.ts";

/** The oldest server installed, since that is what has to be supported. */
const server = globSync("/usr/lib/postgresql/*/bin/postgres").sort()[0];

describe.skipIf(server === undefined)(`Conduit on ${server ?? "a system's PostgreSQL (none is installed)"}`, () => {
  let postgres: TestPostgres;
  let folder: string;

  beforeAll(async () => {
    process.env["RUNGS_TEST_POSTGRES_BIN"] = dirname(server as string);
    postgres = await startTestPostgres();
    folder = await mkdtemp(join(tmpdir(), "conduit-server-"));
  });
  afterAll(async () => {
    await postgres.stop();
    await rm(folder, { recursive: true, force: true });
  });

  const addressOf = (database: string) =>
    `postgres://rungs:s3cret@localhost/${database}?host=${encodeURIComponent(postgres.host)}&port=${postgres.port}`;

  it.each([1, 2])("works on %i database(s), again after a restart, and starts no server of its own", async (shards) => {
    expect(postgres.version).toBeGreaterThanOrEqual(15);
    const urls = await Promise.all(Array.from({ length: shards }, () => postgres.createDatabase()));
    for (const round of [1, 2]) {
      const conduit = await spawnConduit(folder, { DATABASE_URL: urls.join(",") });
      try {
        const author = await registered(conduit.url, `author${round}`);
        const reader = await registered(conduit.url, `reader${round}`);
        const article = (
          await author.post("/articles", {
            article: { title: `Round ${round}`, description: "d", body: "b", tagList: ["t"] },
          })
        ).body.article;
        expect((await reader.post(`/articles/${article.slug}/favorite`)).body.article.favoritesCount).toBe(1);
        await reader.post(`/profiles/author${round}/follow`);
        expect((await reader.get("/articles/feed")).body.articlesCount).toBe(1);
        expect((await client(conduit.url).get("/articles?tag=t")).body.articlesCount).toBe(round);
        expect(conduit.output()).toContain("on the server of DATABASE_URL");
      } finally {
        expect(await conduit.end("SIGINT")).toBe(0);
      }
    }
  });

  it("says which database an address lacks, without its password", async () => {
    const error = await spawnConduit(folder, { DATABASE_URL: addressOf("nowhere") }).then(
      () => new Error("it started"),
      (reason: unknown) => reason as Error,
    );
    expect(error.message).toMatch(/shard 0 refused the login or database name: database "nowhere" does not exist/);
    expect(error.message).not.toContain("s3cret");
  });
});
