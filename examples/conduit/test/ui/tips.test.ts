/** Tips on the pages: without a script, and live in two browsers. */
import { randomUUID } from "node:crypto";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { minorUnitsOf, money } from "../../src/domain/money.ts";
import { type PayingConduit, startPayingConduit, until } from "../support/payments.ts";
import { signUp, type Visitor, visitor } from "./support/browserless.ts";
import { findChromium, launch, person, tellOnFailure } from "./support/chromium.ts";
import { attributeOf, dangersIn, elementsOf, payloads } from "./support/inspect.ts";

let conduit: PayingConduit;
let payer: Visitor;
let payee: Visitor;

beforeAll(async () => {
  conduit = await startPayingConduit({ shards: 2 });
  payer = await signUp(conduit.url, "payer");
  payee = await signUp(conduit.url, "payee");
}, 60_000);
afterAll(() => conduit?.stop());

/** The key in the form of a page. */
function keyOf(html: string): string {
  const field = elementsOf(html).find((element) => attributeOf(element, "name") === "key");
  return (field && attributeOf(field, "value")) ?? "";
}

/** What could run on a page, its own scripts left out. */
function dangers(html: string): readonly string[] {
  const sources = elementsOf(html).flatMap((element) => attributeOf(element, "src") ?? []);
  return dangersIn(
    html,
    sources.filter((source) => /^\/assets\/(?:app|live|uploads|tips)\.[0-9a-f]+\.js$/.test(source)),
  );
}

/** A state page once its tip has ended. */
const ended = (who: Visitor, path: string) =>
  until(
    () => who.get(path),
    ({ html }) => !html.includes("data-pending"),
  );

describe("without a script", () => {
  test("a form on profile and article gives a tip, whose page says how it stands and in the end that it is paid", async () => {
    const article = await payee.post("/editor", { title: "Tip me", description: "d", body: "b" });
    for (const path of ["/profile/payee", article.location ?? "", "/profile/payee/tip"]) {
      const { html } = await payer.get(path);
      expect(html, path).toContain('action="/profile/payee/tips"');
      const sent = await payer.post("/profile/payee/tips", {
        key: keyOf(html),
        amount: "500",
        own: "",
        message: "Nice",
      });
      expect(sent.status).toBe(303);
      expect(sent.location).toMatch(/^\/tips\/[0-9a-f-]{36}$/);
      const { html: page } = await ended(payer, sent.location ?? "");
      expect(page).toContain("<b>Paid.</b>");
      expect(page).toContain("€5.00 for payee");
    }
  });

  test("a form sent twice gives one tip, and one changed by way of the history is asked again", async () => {
    const key = keyOf((await payer.get("/profile/payee/tip")).html);
    const fields = { key, amount: "200", own: "", message: "" };
    const [first, again] = [
      await payer.post("/profile/payee/tips", fields),
      await payer.post("/profile/payee/tips", fields),
    ];
    expect(again.location).toBe(first.location);
    const changed = await payer.post("/profile/payee/tips", { ...fields, amount: "1000" });
    expect(changed.status).toBe(422);
    expect(changed.html).toContain("was sent before with other values");
    const fresh = keyOf(changed.html);
    expect(fresh).not.toBe(key);
    const meant = await payer.post("/profile/payee/tips", { ...fields, key: fresh, amount: "1000" });
    expect([meant.status, meant.location === first.location]).toEqual([303, false]);
  });

  test("an amount of one's own is taken as typed, and a wrong one comes back as typed", async () => {
    const give = (own: string, message = "") =>
      payer.post("/profile/payee/tips", { key: randomUUID(), amount: "500", own, message });
    const { html } = await payer.get((await give("12,50")).location ?? "");
    expect(html).toContain("€12.50");
    for (const own of ["0", "1000.01", "1.005", "-1", "1e3", "abc", "<b>"]) {
      const refused = await give(own, 'With "quotes"');
      expect(refused.status, own).toBe(422);
      expect(refused.html).toContain("must be from 0.01 to 1,000.00");
      expect(refused.html).toContain(`value="${own.replace("<", "&lt;").replace(">", "&gt;")}"`);
      expect(refused.html).toContain('value="With &quot;quotes&quot;"');
    }
  });

  test("a declined tip says why, and that nothing was charged", async () => {
    const sent = await payer.post("/profile/payee/tips", {
      key: randomUUID(),
      amount: "own",
      own: "5.13",
      message: "",
    });
    const { html } = await ended(payer, sent.location ?? "");
    expect(html).toContain("<b>Declined.</b> There is not enough money in the account. You have not been charged.");
  });

  test("given and received tips and the balance are shown to their owner only", async () => {
    const third = await signUp(conduit.url, "third");
    const sent = await third.post("/profile/payee/tips", {
      key: randomUUID(),
      amount: "1000",
      own: "",
      message: "From third",
    });
    await ended(third, sent.location ?? "");
    expect((await third.get("/tips")).html).toMatch(/From third[\s\S]*€10\.00/);
    const { html } = await until(
      () => payee.get("/tips"),
      (page) => page.html.includes("From third"),
    );
    expect(html).toMatch(/€9\.50<small>of €10\.00<\/small>/);
    expect((await payer.get("/tips")).html).not.toContain("From third");
    expect((await payer.get(sent.location ?? "")).status).toBe(404);
    expect((await payee.get(sent.location ?? "")).status).toBe(404);
    for (const path of ["/tips", sent.location ?? "", "/profile/payee/tip"]) {
      const answer = await visitor(conduit.url).get(path);
      expect([answer.status, answer.location]).toEqual([303, `/login?next=${encodeURIComponent(path)}`]);
    }
    expect((await visitor(conduit.url).get("/profile/payee")).html).toContain("/login?next=%2Fprofile%2Fpayee%2Ftip");
    expect((await payee.get("/profile/payee")).html).not.toContain("tip-form");
  });

  test("a form of another site, and one without its token, give nothing", async () => {
    const fields = { key: randomUUID(), amount: "500", own: "", message: "" };
    const before = (await payer.get("/tips")).html.match(/class="tip-amount"/g)?.length;
    expect((await payer.post("/profile/payee/tips", fields, { "sec-fetch-site": "cross-site" })).status).toBe(403);
    expect((await payer.post("/profile/payee/tips", { ...fields, _csrf: "wrong" })).status).toBe(403);
    expect((await payer.post("/profile/payee/tips", { ...fields, key: "" })).status).toBe(400);
    expect((await payer.get("/tips")).html.match(/class="tip-amount"/g)?.length).toBe(before);
  });

  test("messages are shown as text", async () => {
    for (const payload of payloads) {
      const message = payload.replace(/\s+/g, " ").slice(0, 280);
      const sent = await payer.post("/profile/payee/tips", { key: randomUUID(), amount: "200", own: "", message });
      // What the database cannot store is refused.
      expect(sent.status, message).toBe(message.includes("\0") ? 422 : 303);
      if (sent.status !== 303) continue;
      expect(dangers((await payer.get(sent.location ?? "")).html)).toEqual([]);
    }
    expect(dangers((await payer.get("/tips")).html)).toEqual([]);
  });
});

describe("amounts", () => {
  test("are shown in their currency, and read back as shown", () => {
    expect([money(500, "EUR"), money(1, "USD"), money(500, "JPY"), money(123_456, "GBP")]).toEqual([
      "€5.00",
      "US$0.01",
      "JP¥500",
      "£1,234.56",
    ]);
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 99_999_999 }), (minor) => {
        expect(minorUnitsOf((minor / 100).toFixed(2), "EUR")).toBe(minor);
        expect(minorUnitsOf(String(minor), "JPY")).toBe(minor);
      }),
    );
    expect([minorUnitsOf("8.2", "EUR"), minorUnitsOf("€ 8,20", "EUR"), minorUnitsOf("8", "EUR")]).toEqual([
      820, 820, 800,
    ]);
    for (const text of ["", " ", ".5", "5.", "1.234,50", "5.001", "-1", "1e3", "٣", "5 5"]) {
      expect(minorUnitsOf(text, "EUR"), text).toBeUndefined();
    }
    expect(minorUnitsOf("5.5", "JPY")).toBeUndefined();
  });
});

const program = findChromium();
const reason = program === undefined ? " [not run: no Chromium found; install it or set CHROMIUM_PATH]" : "";

describe.skipIf(program === undefined)(`in Chromium${reason}`, () => {
  let browser: Browser;
  let folder: string;

  beforeAll(async () => {
    [browser, folder] = await Promise.all([launch(program as string), mkdtemp(join(tmpdir(), "conduit-tips-"))]);
    console.info(`Screenshots: ${folder}`);
  });
  afterAll(() => browser?.close());

  async function picture(page: Page, name: string): Promise<void> {
    const excess = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
    expect(excess, `${name} scrolls sideways`).toBe(0);
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
  }

  async function register(page: Page, username: string): Promise<void> {
    await page.goto("/register");
    await page.getByLabel("Username").fill(username);
    await page.getByLabel("Email").fill(`${username}@example.com`);
    await page.getByLabel("Password").fill("correct horse");
    await page.getByRole("button", { name: "Sign up" }).click();
    await page.waitForURL("/");
  }

  const phone: BrowserContextOptions = { viewport: { width: 360, height: 740 }, isMobile: true, colorScheme: "dark" };

  test.each([
    ["desktop", { viewport: { width: 1280, height: 800 } }],
    ["phone", phone],
  ])(
    "a tip is paid before the payer's eyes and comes in before the payee's, on a %s",
    { timeout: 90_000 },
    async (device, options) => {
      const [one, two] = [await person(browser, conduit.url, options), await person(browser, conduit.url, options)];
      tellOnFailure(one, two);
      await register(one.page, `giver-${device}`);
      await register(two.page, `taker-${device}`);
      await two.page.goto("/tips");
      await picture(two.page, `${device}-empty`);
      await one.page.goto(`/profile/taker-${device}`);
      await one.page.getByText(`Tip taker-${device}`).click();
      await picture(one.page, `${device}-form`);
      // Charged first, told later: the page has something to wait for.
      await one.page.getByRole("textbox", { name: /Other amount/ }).fill("5.29");
      await one.page.getByLabel("Message").fill("For the article");
      await one.page.getByRole("button", { name: "Send tip" }).click();
      await one.page.waitForURL(/\/tips\/[0-9a-f-]{36}$/);
      await one.page.evaluate("window.isSamePage = true");
      await one.page.locator(".tip-state.is-succeeded").waitFor();
      expect(await one.page.evaluate("window.isSamePage")).toBe(true);
      await picture(one.page, `${device}-paid`);
      await two.page.locator(".tip-list >> text=For the article").waitFor();
      await picture(two.page, `${device}-received`);
      expect(await two.page.locator(".balance").textContent()).toBe("€5.03");
      await one.page.goto("/tips");
      await picture(one.page, `${device}-given`);
      expect([...one.troubles, ...two.troubles]).toEqual([]);
      await Promise.all([one.context.close(), two.context.close()]);
    },
  );
});
