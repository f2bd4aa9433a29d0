/** The pages over HTTP, as a browser without scripts sends and gets them, against the real app. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ConduitAtRung, startConduitAt, targets } from "../support/rungs.ts";
import { signUp, type Visitor, visitor } from "./support/browserless.ts";
import { attributeOf, dangersIn, elementsOf, payloads } from "./support/inspect.ts";

describe.each(targets([{ shards: 1, cache: "on" }]))("at $title", (target) => {
  let conduit: ConduitAtRung;
  let writer: Visitor;
  let reader: Visitor;

  beforeAll(async () => {
    conduit = await startConduitAt(target);
    writer = await signUp(conduit.url, "writer");
    reader = await signUp(conduit.url, "reader");
  }, 120_000);

  afterAll(() => conduit?.stop(), 60_000);

  let count = 0;

  async function publish(fields: Readonly<Record<string, string>> = {}): Promise<string> {
    const answer = await writer.post("/editor", {
      title: `Title ${++count}`,
      description: "About",
      body: "Text",
      tags: "one, two",
      ...fields,
    });
    expect(answer.status).toBe(303);
    return answer.location ?? "";
  }

  describe("headers", () => {
    test("a page names what may run, and is not stored once somebody signed in", async () => {
      const open = await visitor(conduit.url).get("/");
      expect(open.headers.get("content-security-policy")).toBe(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' https: data:; media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
      );
      expect(open.headers.get("x-content-type-options")).toBe("nosniff");
      expect(open.headers.get("referrer-policy")).toBe("same-origin");
      expect(open.headers.get("cache-control")).toBe("public, max-age=0, must-revalidate");
      expect(open.headers.get("vary")).toMatch(/cookie/i);
      expect((await reader.get("/")).headers.get("cache-control")).toBe("private, no-store");
      expect((await reader.get("/editor")).headers.get("cache-control")).toBe("private, no-store");
    });

    test("the style and the script of a page are there, immutable", async () => {
      const { html } = await visitor(conduit.url).get("/");
      const files = elementsOf(html).flatMap((element) =>
        ["link", "script"].includes(element.tagName)
          ? [attributeOf(element, "href") ?? attributeOf(element, "src") ?? ""]
          : [],
      );
      expect(files).toHaveLength(3);
      for (const file of files) {
        const answer = await visitor(conduit.url).get(file);
        expect([answer.status, answer.headers.get("cache-control")]).toEqual([
          200,
          "public, max-age=31536000, immutable",
        ]);
      }
    });
  });

  describe("signed out", () => {
    test.each([
      ["/editor", "/login?next=%2Feditor"],
      ["/editor/some-slug", "/login?next=%2Feditor%2Fsome-slug"],
      ["/settings", "/login?next=%2Fsettings"],
      ["/?feed=following", "/login?next=%2F%3Ffeed%3Dfollowing"],
    ])("GET %s leads to sign-in and back", async (path, to) => {
      const answer = await visitor(conduit.url).get(path);
      expect([answer.status, answer.location]).toEqual([303, to]);
    });

    test("following, favouriting, commenting and deleting lead to sign-in and change nothing", async () => {
      const article = await publish();
      const nobody = visitor(conduit.url);
      for (const path of [
        `${article}/favorite`,
        `${article}/comments`,
        `${article}/delete`,
        `${article}/comments/1/delete`,
        "/profile/writer/follow",
      ]) {
        const answer = await nobody.post(path, { body: "Hello" });
        expect([answer.status, answer.location?.split("?")[0]], path).toEqual([303, "/login"]);
      }
      const followed = await nobody.post("/profile/writer/follow", { next: `${article}?comments=all` });
      expect(followed.location).toBe(`/login?next=${encodeURIComponent(`${article}?comments=all`)}`);
      expect((await nobody.get(article)).html).toContain("(0)");
    });
  });

  describe("sign-in and sign-up", () => {
    test("a wrong password gives 401 with the address kept and the password not", async () => {
      const answer = await visitor(conduit.url).post("/login", {
        email: "reader@example.com",
        password: "not it at all",
        next: "/settings",
      });
      expect(answer.status).toBe(401);
      expect(answer.html).toContain('value="reader@example.com"');
      expect(answer.html).toContain('name="next" value="/settings"');
      expect(answer.html).not.toContain("not it at all");
      expect(answer.html).toMatch(/error-messages.*email or password is invalid/);
    });

    test("a right one starts a session and leads to where the visitor wanted to go", async () => {
      const person = visitor(conduit.url);
      const answer = await person.post("/login", {
        email: "reader@example.com",
        password: "correct horse",
        next: "/settings",
      });
      expect([answer.status, answer.location]).toEqual([303, "/settings"]);
      expect((await person.get("/settings")).html).toContain('value="reader"');
      expect((await person.get("/login")).location).toBe("/");
    });

    test.each(["//evil.example", "/\\evil.example", "https://evil.example", "/.//evil.example", "javascript:alert(1)"])(
      "never leads to %s",
      async (next) => {
        const person = visitor(conduit.url);
        expect((await person.get(`/login?next=${encodeURIComponent(next)}`)).html).not.toContain("evil.example");
        const answer = await person.post("/login", { email: "reader@example.com", password: "correct horse", next });
        expect([answer.status, answer.location]).toEqual([303, "/"]);
      },
    );

    test("names that are taken and fields that are wrong come back with what was typed", async () => {
      const taken = await visitor(conduit.url).post("/register", {
        username: "reader",
        email: "new@example.com",
        password: "correct horse",
      });
      expect(taken.status).toBe(422);
      expect(taken.html).toMatch(/<li><a href="#field-username">username .*taken/);
      expect(taken.html).toContain('value="new@example.com"');
      const wrong = await visitor(conduit.url).post("/register", { username: "", email: "<b>", password: "x" });
      expect(wrong.status).toBe(422);
      for (const name of ["username", "email", "password"]) expect(wrong.html).toContain(`href="#field-${name}"`);
    });

    test("signing out ends the session for good", async () => {
      const person = await signUp(conduit.url, "leaver");
      const { cookie } = person;
      expect((await person.post("/logout")).location).toBe("/");
      expect(person.cookie).toBe("");
      const answer = await fetch(`${conduit.url}/settings`, { headers: { cookie }, redirect: "manual" });
      expect(answer.status).toBe(303);
    });

    test("a new password ends the other sessions and keeps this one", async () => {
      const here = await signUp(conduit.url, "mover");
      const there = visitor(conduit.url);
      await there.post("/login", { email: "mover@example.com", password: "correct horse" });
      expect((await there.get("/settings")).status).toBe(200);
      const changed = await here.post("/settings", {
        username: "mover",
        email: "mover@example.com",
        bio: "",
        image: "",
        password: "battery staple",
      });
      expect([changed.status, changed.location]).toEqual([303, "/profile/mover"]);
      expect((await there.get("/settings")).status).toBe(303);
      expect((await here.get("/settings")).status).toBe(200);
    });
  });

  describe("forms of other sites", () => {
    const foreign = { origin: "https://evil.example", "sec-fetch-site": "cross-site" };

    test("are refused with 403 when they ride on a session, and change nothing", async () => {
      const article = await publish();
      const answer = await reader.post(`${article}/favorite`, { _csrf: "guess" }, foreign);
      expect(answer.status).toBe(403);
      expect(answer.headers.get("content-type")).toContain("text/html");
      expect((await reader.get(article)).html).toContain("Favorite Article <span");
      expect((await reader.get(article)).html).not.toContain("Unfavorite");
    });

    test("cannot sign anybody in or up", async () => {
      const login = await visitor(conduit.url).post(
        "/login",
        { email: "reader@example.com", password: "correct horse" },
        foreign,
      );
      expect([login.status, login.headers.getSetCookie()]).toEqual([403, []]);
      const register = await visitor(conduit.url).post(
        "/register",
        { username: "forged", email: "forged@example.com", password: "correct horse" },
        foreign,
      );
      expect(register.status).toBe(403);
      expect((await reader.get("/profile/forged")).status).toBe(404);
    });
  });

  describe("articles", () => {
    test("tags come from pills and from the field with commas, each once", async () => {
      const answer = await writer.post("/editor", [
        ["title", "Tagged"],
        ["description", "d"],
        ["body", "b"],
        ["tagList", "with, comma"],
        ["tagList", "two"],
        ["tags", "two, three ,,"],
      ]);
      const { html } = await writer.get(answer.location ?? "");
      const tags = elementsOf(html).filter((element) => attributeOf(element, "class") === "tag-default tag-pill");
      expect(tags.map((tag) => attributeOf(tag, "href"))).toEqual([
        "/?tag=with%2C%20comma",
        "/?tag=two",
        "/?tag=three",
      ]);
    });

    test("a refused article comes back as it was typed, tags included", async () => {
      const answer = await writer.post("/editor", {
        title: "",
        description: "Kept <b>",
        body: "\nKept\r\ntext",
        tags: "kept",
      });
      expect(answer.status).toBe(422);
      expect(answer.html).toContain('href="#field-title"');
      expect(answer.html).toContain('value="Kept &lt;b&gt;"');
      const area = elementsOf(answer.html).find((element) => attributeOf(element, "id") === "field-body");
      expect(area?.childNodes.map((node) => ("value" in node ? node.value : ""))).toEqual(["\nKept\ntext"]);
      expect(answer.html).toContain('name="tagList" value="kept"');
    });

    test("a preview shows the text without saving it", async () => {
      const answer = await writer.post("/editor", {
        intent: "preview",
        title: "Not saved",
        description: "",
        body: "**bold**",
      });
      expect(answer.status).toBe(200);
      expect(answer.html).toContain("<strong>bold</strong>");
      expect((await writer.get("/profile/writer")).html).not.toContain("Not saved");
    });

    test("a new title gives a new address, and the old one leads to it", async () => {
      const old = await publish();
      const saved = await writer.post(old.replace("/article/", "/editor/"), {
        title: "Another name",
        description: "d",
        body: "b",
      });
      expect(saved.status).toBe(303);
      expect(saved.location).not.toBe(old);
      expect((await reader.get(old)).location).toBe(saved.location);
    });

    test("only the author may edit or delete", async () => {
      const article = await publish();
      const editor = article.replace("/article/", "/editor/");
      expect((await reader.get(editor)).status).toBe(403);
      expect((await reader.post(editor, { title: "Stolen", description: "d", body: "b" })).status).toBe(403);
      expect((await reader.post(`${article}/delete`)).status).toBe(403);
      const { html } = await reader.get(article);
      expect(html).not.toMatch(/Edit Article|Delete Article|Stolen/);
      expect((await writer.get(article)).html).toMatch(/Edit Article.*Delete Article/s);
      expect((await writer.post(`${article}/delete`)).location).toBe("/");
      expect((await writer.get(article)).status).toBe(404);
    });

    test("a comment may be deleted by its writer only; a blank one comes back with 422", async () => {
      const article = await publish();
      expect((await reader.post(`${article}/comments`, { body: "Mine <i>" })).location).toBe(`${article}#comments`);
      expect((await reader.get(article)).html).toContain("Mine &lt;i&gt;");
      expect((await writer.post(`${article}/comments/1/delete`)).status).toBe(403);
      const blank = await reader.post(`${article}/comments`, { body: "   " });
      expect(blank.status).toBe(422);
      expect(blank.html).toContain("error-messages");
      expect((await reader.post(`${article}/comments/1/delete`)).status).toBe(303);
      expect((await reader.get(article)).html).not.toContain("Mine &lt;i&gt;");
    });

    test("favouriting and following lead back to where they were asked for, and undo", async () => {
      const article = await publish();
      expect((await reader.post(`${article}/favorite`, { next: "/?page=2#a-x" })).location).toBe("/?page=2#a-x");
      expect((await reader.post("/profile/writer/follow", { next: "//evil.example" })).location).toBe(
        "/profile/writer",
      );
      expect((await reader.get(article)).html).toMatch(
        /Unfollow writer.*Unfavorite Article <span class="counter">\(1\)/s,
      );
      expect((await reader.get("/?feed=following")).html).toContain(`href="${article}"`);
      expect((await reader.get("/profile/reader/favorites")).html).toContain(`href="${article}"`);
      await reader.post(`${article}/unfavorite`);
      await reader.post("/profile/writer/unfollow");
      expect((await reader.get(article)).html).toMatch(/Follow writer.*Favorite Article <span class="counter">\(0\)/s);
    });
  });

  describe("addresses and bodies that are wrong", () => {
    test.each([
      "/nothing",
      "/article/nothing",
      "/profile/nobody",
      "/profile/nobody/favorites",
      "/article/%F0%9F%92%A9",
      "/a/b/c",
      // A balancer refuses these before the app sees them.
      ...(target.rung > 1 ? [] : ["/%00", "/profile/%00"]),
    ])("GET %s gives the page that says so", async (path) => {
      const answer = await reader.get(path);
      expect(answer.status).toBeGreaterThanOrEqual(400);
      expect(answer.status).toBeLessThan(500);
      expect(answer.headers.get("content-type")).toContain("text/html");
      expect(answer.html).toContain("Go to the front page");
    });

    test.each([
      "/?page=0",
      "/?page=-1",
      "/?page=abc",
      "/?page=99999999",
      "/?tag=",
      "/?tag=%00",
      "/?tag=a&tag=b",
      "/?page[]=2",
      `/?tag=${"x".repeat(2_000)}`,
      "/?__proto__=1",
    ])("GET %s gives a page all the same", async (path) => {
      expect((await reader.get(path)).status).toBe(200);
    });

    test("a form of 2 MB gets 413, one with broken or repeated fields a 4xx", async () => {
      const huge = await writer.post("/editor", { title: "Huge", description: "d", body: "x".repeat(2_000_000) });
      expect(huge.status).toBe(413);
      for (const fields of [
        { title: "a\0b", description: "d", body: "b" },
        {
          title: "t",
          description: "d",
          body: "b",
          tags: Array.from({ length: 50 }, (_, index) => `t${index}`).join(","),
        },
        { title: "x".repeat(5_000), description: "d", body: "b" },
        [
          ["title", "a"],
          ["title", "b"],
          ["__proto__", "x"],
        ] as const,
      ]) {
        expect((await writer.post("/editor", fields)).status).toBe(422);
      }
      const json = await fetch(`${conduit.url}/editor`, {
        method: "POST",
        headers: { "content-type": "application/json", cookie: writer.cookie },
        body: "[1",
      });
      expect(json.status).toBeGreaterThanOrEqual(400);
      expect(json.status).toBeLessThan(500);
    });

    test("text of 65,536 characters of three bytes each is taken", async () => {
      const article = await publish({ body: "語".repeat(65_536) });
      expect((await reader.get(article)).html).toContain("語語語");
    });
  });

  test("an article, a comment, a name and a bio made of payloads run nothing on any page", async () => {
    for (const [index, payload] of payloads.entries()) {
      if (payload.includes("\0")) continue;
      const line = payload.replaceAll(/\s/g, " ").replaceAll("\u0001", "").trim();
      const saved = await writer.post("/editor", [
        ["title", line],
        ["description", line],
        ["body", payload],
        ["tagList", line.slice(0, 50)],
      ]);
      expect(saved.status, payload).toBe(303);
      const article = saved.location ?? "";
      expect((await reader.post(`${article}/comments`, { body: payload })).status).toBe(303);
      if (index % 10 === 0)
        await writer.post("/settings", {
          username: "writer",
          email: "writer@example.com",
          bio: payload,
          image: 'https://a.example/"onerror="alert(1)',
        });
      const { html } = await reader.get(article);
      expect(dangersIn(html, scriptsOf(html)), payload).toEqual([]);
    }
    for (const path of ["/", "/?page=2", "/profile/writer", "/settings"]) {
      const { html } = await writer.get(path);
      expect(dangersIn(html, scriptsOf(html)), path).toEqual([]);
    }
  });

  /** Addresses of the site's own scripts on a page, each once: any other script is a danger. */
  function scriptsOf(html: string): readonly string[] {
    const scripts = elementsOf(html).filter(({ tagName }) => tagName === "script");
    const addresses = scripts.map((script) => attributeOf(script, "src") ?? "");
    const known = addresses.filter((each) => /^\/assets\/(?:app|live|uploads)\.[0-9a-f]+\.js$/.test(each));
    expect(new Set(known).size).toBe(addresses.length);
    return known;
  }
});
