/** Notifications and live pages, without a browser and in a real one. */
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ConduitAtRung, openStreams, startConduitAt, targets } from "../support/rungs.ts";
import { signUp, type Visitor, visitor } from "./support/browserless.ts";
import { findChromium, launch, type Person, person } from "./support/chromium.ts";
import { attributeOf, elementsOf, textOf } from "./support/inspect.ts";
import { openWay } from "./support/way.ts";

describe.each(targets([{ shards: 1, cache: "on" }]))("at $title", (target) => {
  let conduit: ConduitAtRung;
  let names = 0;

  beforeAll(async () => {
    conduit = await startConduitAt(target);
  });
  afterAll(() => conduit?.stop());

  const newName = (word: string) => `${word}${++names}`;
  const wait = { timeout: 10_000, interval: 20 };

  /** The badge of a page's bell; undefined when it is hidden. */
  function badgeOf(html: string): string | undefined {
    const badge = elementsOf(html).find((element) => attributeOf(element, "class") === "badge");
    return badge === undefined || attributeOf(badge, "hidden") !== undefined ? undefined : textOf(badge);
  }

  async function article(author: Visitor): Promise<string> {
    const answer = await author.post("/editor", { title: newName("Title"), description: "d", body: "b" });
    return answer.location ?? "";
  }

  describe("without scripts", () => {
    test("the bell counts, the list shows what is new once, and opening it marks it read", async () => {
      const [alice, bob] = [newName("alice"), newName("bob")];
      const [writer, reader] = [await signUp(conduit.url, alice), await signUp(conduit.url, bob)];
      const path = await article(writer);
      expect(badgeOf((await writer.get("/")).html)).toBeUndefined();
      const badge = async () => badgeOf((await writer.get("/")).html);
      await reader.post(`/profile/${alice}/follow`);
      await expect.poll(badge, wait).toBe("1 unread");
      await reader.post(`${path}/favorite`);
      await expect.poll(badge, wait).toBe("2 unread");
      await reader.post(`${path}/comments`, { body: "Well put." });
      await expect.poll(badge, wait).toBe("3 unread");
      expect(badgeOf((await reader.get("/")).html)).toBeUndefined();

      const page = await writer.get("/notifications");
      expect([page.status, page.headers.get("cache-control"), badgeOf(page.html)]).toEqual([
        200,
        "private, no-store",
        undefined,
      ]);
      const items = (html: string) =>
        elementsOf(html).filter((element) => attributeOf(element, "class")?.startsWith("notification is-new"));
      expect(items(page.html).map(textOf)).toEqual([
        expect.stringContaining(`New: ${bob} commented on`),
        expect.stringContaining(`New: ${bob} likes`),
        expect.stringContaining(`New: ${bob} follows you.`),
      ]);
      const links = elementsOf(page.html).filter((each) => attributeOf(each, "class") === "notification-link");
      expect(links.map((link) => attributeOf(link, "href"))).toEqual([`${path}#comment-1`, path, `/profile/${bob}`]);
      expect(items((await writer.get("/notifications")).html)).toEqual([]);
      expect((await writer.get("/notifications?before=3")).html).not.toContain("commented on");
      expect((await writer.get("/notifications?before=x")).html).toContain("commented on");
    });

    test("signed out, they lead to the sign-in and load no live script", async () => {
      const nobody = visitor(conduit.url);
      const answer = await nobody.get("/notifications");
      expect([answer.status, answer.location]).toEqual([303, "/login?next=%2Fnotifications"]);
      expect((await nobody.get("/")).html).not.toContain("/assets/live");
    });

    test("signing out ends the streams of that session", async () => {
      const someone = await signUp(conduit.url, newName("leaver"));
      const answer = await fetch(`${conduit.url}/api/live`, { headers: { cookie: someone.cookie } });
      expect(answer.status).toBe(200);
      const text = answer.text();
      await someone.post("/logout");
      expect(await text).toContain('data: {"reason":"revoked"}');
    });
  });

  const program = findChromium();
  const reason = program === undefined ? " [not run: no Chromium found; install it or set CHROMIUM_PATH]" : "";

  describe.skipIf(program === undefined)(`live in Chromium${reason}`, () => {
    let browser: Browser;

    beforeAll(async () => {
      browser = await launch(program as string);
    });
    afterAll(() => browser?.close());

    /** Somebody signed in at a browser, whose page would lose `window.stayed` by a reload. */
    async function open(name: string, path: string, url = conduit.url): Promise<Person> {
      const someone = await person(browser, url);
      const { cookie } = await signUp(conduit.url, name);
      const [cookieName = "", value = ""] = cookie.split("=");
      await someone.context.addCookies([{ name: cookieName, value, url }]);
      await visit(someone, path);
      return someone;
    }

    /** Goes to a page and waits until it listens. */
    async function visit({ page }: Person, path: string): Promise<void> {
      const listening = page.waitForResponse((answer) => answer.url().includes("/api/live") && answer.status() === 200);
      await page.goto(path);
      await listening;
      await page.evaluate("window.stayed = true");
    }

    const stayed = ({ page }: Person) => page.evaluate("window.stayed");

    test("Bob follows Alice, and her open page says so without a reload", { timeout: 60_000 }, async () => {
      const [aliceName, bobName] = [newName("alice"), newName("bob")];
      const alice = await open(aliceName, "/");
      const bob = await open(bobName, `/profile/${aliceName}`);
      const badge = alice.page.locator(".bell .badge b");
      expect(await badge.isVisible()).toBe(false);
      await bob.page.click('button:has-text("Follow")');
      await badge.waitFor();
      expect(await badge.textContent()).toBe("1");
      await expect.poll(() => alice.page.locator("#status").textContent(), wait).toBe(`${bobName} follows you.`);
      expect(await alice.page.locator("#status").getAttribute("role")).toBe("status");
      expect(await stayed(alice)).toBe(true);

      const second = await alice.context.newPage();
      await second.goto("/notifications");
      await second.locator(".notification.is-new", { hasText: `${bobName} follows you.` }).waitFor();
      // Seen in the one page, read in the other.
      await badge.waitFor({ state: "hidden" });
      expect(await stayed(alice)).toBe(true);
      expect([...alice.troubles, ...bob.troubles]).toEqual([]);
      await Promise.all([alice.context.close(), bob.context.close()]);
    });

    test("the open list shows what comes, and a lost connection loses nothing", { timeout: 60_000 }, async () => {
      const aliceName = newName("alice");
      const way = await openWay(conduit.url);
      const alice = await open(aliceName, "/notifications", way.url);
      const bob = await signUp(conduit.url, newName("bob"));
      await bob.post(`/profile/${aliceName}/follow`);
      await alice.page.locator(".notification", { hasText: "follows you" }).waitFor();

      await visit(alice, "/");
      way.cut();
      await expect.poll(() => openStreams(conduit), { timeout: 5_000 }).toBe(0);
      for (const number of [1, 2]) {
        await (await signUp(conduit.url, newName(`missed${number}`))).post(`/profile/${aliceName}/follow`);
      }
      way.open();
      await expect.poll(() => alice.page.locator(".bell .badge b").textContent(), { timeout: 20_000 }).toBe("2");
      expect(await stayed(alice)).toBe(true);
      await alice.context.close();
      await way.close();
    });

    test("a comment appears on an open article, and what is being written there stays", {
      timeout: 60_000,
    }, async () => {
      const writer = await signUp(conduit.url, newName("writer"));
      const path = await article(writer);
      const reader = await open(newName("reader"), path);
      const { page } = reader;
      await page.fill('textarea[name="body"]', "Half a thou");
      await page.focus('textarea[name="body"]');
      await writer.post(`${path}/comments`, { body: "First!" });
      await page.locator(".card-text", { hasText: "First!" }).waitFor();
      await writer.post(`${path}/comments`, { body: "Second <b>thought</b>." });
      await page.locator(".card-text", { hasText: "Second <b>thought</b>." }).waitFor();
      expect(await page.locator(".card-text").allTextContents()).toEqual(["Second <b>thought</b>.", "First!"]);
      expect(await page.locator("#comments-title").textContent()).toBe("2 comments");
      expect(await page.locator(".no-comments").count()).toBe(0);
      expect(await page.inputValue('textarea[name="body"]')).toBe("Half a thou");
      expect(await page.evaluate("document.activeElement.name")).toBe("body");

      await page.click('button:has-text("Post Comment")');
      await page.locator(".card-text", { hasText: "Half a thou" }).waitFor();
      await writer.post(`${path}/comments`, { body: "Fourth." });
      await page.locator(".card-text", { hasText: "Fourth." }).waitFor();
      expect(await page.locator(".card-text").allTextContents()).toEqual([
        "Fourth.",
        "Half a thou",
        "Second <b>thought</b>.",
        "First!",
      ]);
      expect(await stayed(reader)).toBe(true);
      expect(reader.troubles).toEqual([]);
      await reader.context.close();
    });
  });
});
