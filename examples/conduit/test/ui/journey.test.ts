/** What people do with Conduit, in a real browser against the real app at every rung. Screenshots go to a temporary folder. */
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ConduitAtRung, startConduitAt, targets } from "../support/rungs.ts";
import { findChromium, launch, type Person, person, tellOnFailure } from "./support/chromium.ts";

const program = findChromium();
const reason = program === undefined ? " [not run: no Chromium found; install it or set CHROMIUM_PATH]" : "";

const desktop: BrowserContextOptions = { viewport: { width: 1280, height: 800 } };
const phone: BrowserContextOptions = {
  viewport: { width: 360, height: 740 },
  isMobile: true,
  hasTouch: true,
  colorScheme: "dark",
};

describe.skipIf(program === undefined).each(targets([{ shards: 1, cache: "on" }]))(
  `journeys in Chromium at $title${reason}`,
  (target) => {
    let conduit: ConduitAtRung;
    let browser: Browser;
    let folder: string;
    // What a page looks like, and what the browser does by itself, is the same at every rung.
    const isFirst = target.rung === 1;

    beforeAll(async () => {
      [conduit, browser, folder] = await Promise.all([
        startConduitAt(target),
        launch(program as string),
        mkdtemp(join(tmpdir(), "conduit-screens-")),
      ]);
      console.info(`Screenshots: ${folder}`);
    });

    afterAll(async () => {
      await browser?.close();
      await conduit?.stop();
    });

    /** Takes a picture, and checks that nothing is wider than the window. */
    async function picture(page: Page, name: string): Promise<void> {
      const excess = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
      expect(excess, `${name} scrolls sideways`).toBe(0);
      await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
    }

    test.each([["desktop", desktop] as const, ...(isFirst ? [["phone", phone] as const] : [])])(
      "writing, reading, liking, following, commenting, settings and deleting on a %s",
      { timeout: 90_000 },
      async (device, options) => {
        const writer = await person(browser, conduit.url, options);
        const reader = await person(browser, conduit.url, options);
        tellOnFailure(writer, reader);
        const names = { writer: `writer-${device}`, reader: `reader-${device}` };
        const title = `A walk on the ${device}`;
        const { page } = writer;

        await signUp(page, names.writer);
        expect(new URL(page.url()).pathname).toBe("/");
        await page.locator(`nav a[href="/profile/${names.writer}"]`).waitFor();
        await picture(page, `${device}-home-empty`);

        await write(page, { title, tags: ["walking", "mistake", device] });
        await page.locator(".tag-pill", { hasText: "mistake" }).locator("i").click();
        await picture(page, `${device}-editor`);
        await page.click('button:has-text("Preview")');
        await page.locator(".preview strong", { hasText: "first" }).waitFor();
        expect(await page.inputValue('input[name="title"]')).toBe(title);
        await Promise.all([page.waitForURL(/\/article\//), page.click('button:has-text("Publish Article")')]);
        expect(await page.locator("h1").first().textContent()).toBe(title);
        expect(await page.locator(".article-content .tag-default").allTextContents()).toEqual(["walking", device]);

        await page.goto("/");
        const preview = page.locator(".article-preview").first();
        expect(await preview.locator("h1").textContent()).toBe(title);
        await picture(page, `${device}-home`);
        await Promise.all([
          page.waitForURL(`**/?tag=${device}`),
          preview.locator(".tag-default", { hasText: device }).click(),
        ]);
        expect(await page.locator(".article-preview h1").allTextContents()).toEqual([title]);

        await page.locator(".article-preview h1").click();
        await Promise.all([page.waitForURL(/\/editor\//), page.click('a:has-text("Edit Article")')]);
        await page.fill('input[name="title"]', `${title}, twice`);
        await Promise.all([page.waitForURL(/\/article\//), page.click('button:has-text("Publish Article")')]);
        expect(await page.locator("h1").first().textContent()).toBe(`${title}, twice`);
        const article = new URL(page.url()).pathname;

        await readAndAnswer(reader, { article, names, device });
        await changeSettings(reader, names.reader, device);
        await deleteComment(reader, article);

        await page.goto(article);
        await page.clock.install();
        await page.click('button:has-text("Delete Article")');
        await page.locator(".toast", { hasText: "Deleting this article" }).waitFor();
        await Promise.all([page.waitForURL((url) => url.pathname === "/"), page.clock.fastForward(6_000)]);
        expect(await page.locator(".article-preview h1", { hasText: title }).count()).toBe(0);

        await signOut(page);
        expect(writer.troubles).toEqual([]);
        expect(reader.troubles).toEqual([]);
        await writer.context.close();
        await reader.context.close();
      },
    );

    async function readAndAnswer(
      { page }: Person,
      { article, names, device }: { article: string; names: { writer: string; reader: string }; device: string },
    ): Promise<void> {
      await page.goto(article);
      await picture(page, `${device}-article-signed-out`);
      await Promise.all([page.waitForURL(/\/login\?next=/), page.locator('button:has-text("Follow")').first().click()]);
      await page.click('a:has-text("Need an account?")');
      await signUp(page, names.reader, { isThere: true });
      expect(new URL(page.url()).pathname).toBe(article);

      await page.evaluate("window.stayed = true");
      await page.locator('button.btn-outline-primary:has-text("Favorite")').first().click();
      await page.locator('button.btn-primary:has-text("Unfavorite")').first().waitFor();
      expect(await page.locator(".buttons .counter").allTextContents()).toEqual(["(1)", "(1)"]);
      await expect.poll(() => page.locator("#status").textContent()).toBe("Added to your favorites.");
      await page.locator('button:has-text("Follow")').first().click();
      await page.locator('button:has-text("Unfollow")').first().waitFor();
      await page.fill('textarea[name="body"]', "I was there.\nIt rained.");
      await page.click('button:has-text("Post Comment")');
      await page.locator(".card-text", { hasText: "It rained." }).waitFor();
      await expect.poll(() => page.inputValue('textarea[name="body"]')).toBe("");
      expect(await page.evaluate("window.stayed")).toBe(true);
      await picture(page, `${device}-article`);

      await page.goto("/");
      // Before its script has come, a page's buttons send their forms as plain ones.
      await Promise.all([page.waitForURL(/feed/), page.click('a:has-text("Your Feed")')]);
      await page.locator(".article-preview").waitFor();
      const heart = page.locator(".article-preview button");
      expect(await heart.getAttribute("aria-pressed")).toBe("true");
      await heart.click();
      await page.locator('.article-preview button[aria-pressed="false"]').waitFor();
      await expect.poll(() => page.evaluate("document.activeElement.getAttribute('aria-pressed')")).toBe("false");
    }

    async function changeSettings({ page }: Person, name: string, device: string): Promise<void> {
      await page.goto("/settings");
      await page.fill('textarea[name="bio"]', "Walks, mostly.");
      await page.fill('input[name="image"]', "https://pictures.example/me.jpg");
      await picture(page, `${device}-settings`);
      await Promise.all([page.waitForURL(/\/profile\//), page.click('button[type="submit"]')]);
      expect(await page.locator(".user-info").textContent()).toContain("Walks, mostly.");
      expect(await page.locator("h4").textContent()).toBe(name);
      await page.locator('.user-info .user-img[src="https://pictures.example/me.jpg"]').waitFor();
      await picture(page, `${device}-profile`);
    }

    async function deleteComment({ page }: Person, article: string): Promise<void> {
      await page.goto(article);
      await page.clock.install();
      const card = page.locator(".card", { hasText: "It rained." });
      await card.locator("i.ion-trash-a").click();
      await card.waitFor({ state: "hidden" });
      await page.keyboard.press("Enter"); // The focus is on Undo.
      await card.waitFor();
      await page.clock.fastForward(6_000);
      expect(await card.isVisible()).toBe(true);
      await card.locator("i.ion-trash-a").click();
      await page.clock.fastForward(6_000);
      await page.locator("text=Nobody has said anything yet.").waitFor();
      await expect.poll(() => page.evaluate("document.activeElement.id")).toBe("comments-title");
      await page.reload();
      expect(await card.count()).toBe(0);
    }

    test("without scripts: writing, liking, commenting and deleting work by plain forms", {
      timeout: 60_000,
    }, async () => {
      const { page, context, troubles } = await person(browser, conduit.url, { ...desktop, javaScriptEnabled: false });
      const other = await person(browser, conduit.url, { ...phone, javaScriptEnabled: false });
      await signUp(page, "plain");
      await page.goto("/editor");
      await page.fill('input[name="title"]', "By plain forms");
      await page.fill('input[name="description"]', "No scripts");
      await page.fill('textarea[name="body"]', "Text");
      await page.fill('input[placeholder="Enter tags"]', "plain, forms");
      await Promise.all([page.waitForURL(/\/article\//), page.click('button:has-text("Publish Article")')]);
      expect(await page.locator(".tag-default").allTextContents()).toEqual(["plain", "forms"]);
      await page.click('a:has-text("Edit Article")');
      await page.uncheck('input[value="plain"]');
      await Promise.all([page.waitForURL(/\/article\//), page.click('button:has-text("Publish Article")')]);
      expect(await page.locator(".tag-default").allTextContents()).toEqual(["forms"]);

      await signUp(other.page, "plainer");
      await other.page.goto(page.url());
      await other.page.locator('button:has-text("Favorite")').first().click();
      await other.page.locator('button:has-text("Unfavorite")').first().waitFor();
      await other.page.fill('textarea[name="body"]', "Well put.");
      await other.page.click('button:has-text("Post Comment")');
      await other.page.locator(".card-text", { hasText: "Well put." }).waitFor();
      await picture(other.page, "plain-article");
      await other.page.click(".mod-options button");
      await other.page.locator("text=Nobody has said anything yet.").waitFor();
      await Promise.all([
        page.waitForURL((url) => url.pathname === "/"),
        page.click('button:has-text("Delete Article")'),
      ]);
      expect([...troubles, ...other.troubles]).toEqual([]);
      await context.close();
      await other.context.close();
    });

    test.each(isFirst ? ["by keyboard alone"] : [])(
      "%s: skip link, sign-in, an error that takes the focus",
      { timeout: 60_000 },
      async () => {
        const { page, context, troubles } = await person(browser, conduit.url, desktop);
        await signUp(page, "keys");
        await signOut(page);
        await page.goto("/");
        await page.keyboard.press("Tab");
        expect(await page.evaluate("document.activeElement.className")).toBe("skip-link");
        await tabTo(page, 'a[href="/login"]');
        await page.keyboard.press("Enter");
        await page.waitForURL(/\/login/);
        await tabTo(page, 'input[name="email"]');
        await page.keyboard.type("keys@example.com");
        await page.keyboard.press("Tab");
        await page.keyboard.type("wrong one");
        await page.keyboard.press("Enter");
        await page.locator(".error-messages li").waitFor();
        await expect.poll(() => page.evaluate("document.activeElement.className")).toBe("error-summary");
        await picture(page, "keyboard-error");
        await tabTo(page, 'input[name="password"]');
        await page.keyboard.type("correct horse");
        await tabTo(page, 'button[type="submit"]');
        await page.keyboard.press("Enter");
        await page.locator('nav a[href="/profile/keys"]').waitFor();
        expect(troubles).toEqual([]);
        await context.close();
      },
    );

    test.each(isFirst ? (["light", "dark"] as const) : [])(
      "every page fits a window of 320 pixels, in %s",
      { timeout: 60_000 },
      async (colorScheme) => {
        const { page, context } = await person(browser, conduit.url, {
          viewport: { width: 320, height: 640 },
          colorScheme,
        });
        const name = `narrow-${colorScheme}-with-a-name-that-is-as-long-as-may`;
        await signUp(page, name);
        await write(page, {
          title: `Unbreakable${"word".repeat(30)}`,
          tags: ["tag-of-many-letters-that-does-not-break-anywhere"],
        });
        await Promise.all([page.waitForURL(/\/article\//), page.click('button:has-text("Publish Article")')]);
        const article = new URL(page.url()).pathname;
        for (const [index, path] of [
          article,
          "/",
          `/profile/${name}`,
          "/editor",
          "/settings",
          "/?feed=following",
          "/nothing",
        ].entries()) {
          await page.goto(path);
          await picture(page, `narrow-${colorScheme}-${index}`);
        }
        await context.close();
      },
    );
  },
);

async function signUp(page: Page, name: string, { isThere = false } = {}): Promise<void> {
  if (!isThere) await page.goto("/register");
  await page.fill('input[name="username"]', name);
  await page.fill('input[name="email"]', `${name}@example.com`);
  await page.fill('input[name="password"]', "correct horse");
  await Promise.all([page.waitForURL((url) => url.pathname !== "/register"), page.click('button[type="submit"]')]);
}

async function signOut(page: Page): Promise<void> {
  await page.goto("/settings");
  await page.click('button:has-text("Or click here to logout.")');
  await page.locator('nav a[href="/login"]').waitFor();
}

async function write(
  page: Page,
  { title, tags }: { readonly title: string; readonly tags: readonly string[] },
): Promise<void> {
  await page.goto("/editor");
  await page.fill('input[name="title"]', title);
  await page.fill('input[name="description"]', "What happened on the way");
  await page.fill(
    'textarea[name="body"]',
    "## Morning\n\nThe **first** step.\n\n- one\n- two\n\n```\ncode that is longer than a phone's screen is wide, by quite some way\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |",
  );
  for (const tag of tags) {
    await page.fill('input[placeholder="Enter tags"]', tag);
    await page.press('input[placeholder="Enter tags"]', "Enter");
  }
}

/** Presses Tab until the focus is there; fails after 40. Each stop must show that it has the focus. */
async function tabTo(page: Page, selector: string): Promise<void> {
  for (let presses = 0; presses < 40; presses++) {
    await page.keyboard.press("Tab");
    expect(await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")).not.toBe("none");
    if (await page.evaluate(`document.activeElement.matches(${JSON.stringify(selector)})`)) return;
  }
  throw new Error(`Tab does not reach ${selector}.`);
}
