/** Uploads on the pages: by plain forms as a browser without scripts sends them, and in a real browser. */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Upload } from "../../src/domain/model.ts";
import { startConduit, type TestConduit } from "../support/conduit.ts";
import { picture, video } from "../support/media.ts";
import { signUp, type Visitor } from "./support/browserless.ts";
import { findChromium, launch, type Person, person } from "./support/chromium.ts";
import { attributeOf, elementsOf } from "./support/inspect.ts";

let conduit: TestConduit;
let photo: Buffer;
let film: Buffer;

beforeAll(async () => {
  [conduit, photo, film] = await Promise.all([startConduit(), picture(), video(3)]);
});
afterAll(() => conduit?.stop());

describe("without a script", () => {
  let ann: Visitor;

  beforeAll(async () => {
    ann = await signUp(conduit.url, "ann");
  });

  const tokenOf = (html: string) => {
    const field = elementsOf(html).find((element) => attributeOf(element, "name") === "_csrf");
    return (field && attributeOf(field, "value")) ?? "";
  };

  /** Sends the form as a browser does; without `token` there is no such field. */
  async function submit(
    file: Buffer,
    {
      token,
      headers = {},
      purpose = "image",
      next = "/uploads",
      isTokenLast = false,
      visibility,
    }: {
      token?: string | undefined;
      headers?: Record<string, string>;
      purpose?: string;
      next?: string;
      isTokenLast?: boolean;
      visibility?: string;
    },
  ) {
    const body = new FormData();
    if (token !== undefined && !isTokenLast) body.append("_csrf", token);
    if (visibility !== undefined) body.append("visibility", visibility);
    body.append("file", new Blob([new Uint8Array(file)]), "photo.jpg");
    if (token !== undefined && isTokenLast) body.append("_csrf", token);
    const query = new URLSearchParams({ purpose, next });
    const answer = await fetch(`${conduit.url}/uploads?${query}`, {
      method: "POST",
      body,
      headers: { cookie: ann.cookie, ...headers },
      redirect: "manual",
    });
    return { status: answer.status, location: answer.headers.get("location"), html: await answer.text() };
  }

  const count = async () =>
    elementsOf((await ann.get("/uploads")).html).filter(
      (element) => attributeOf(element, "data-upload-id") !== undefined,
    ).length;

  test("a picture is sent by the form, listed, and deleted", async () => {
    const page = await ann.get("/uploads");
    const form = elementsOf(page.html).find((element) => attributeOf(element, "data-upload") !== undefined);
    expect([form && attributeOf(form, "enctype"), form && attributeOf(form, "method")]).toEqual([
      "multipart/form-data",
      "post",
    ]);
    expect(await submit(photo, { token: tokenOf(page.html) })).toMatchObject({ status: 303, location: "/uploads" });
    await expect
      .poll(async () => (await ann.get("/uploads")).html, { timeout: 20_000 })
      .toMatch(/<img class="upload-media" src="\/media\//);
    const { html } = await ann.get("/uploads");
    expect(html).toMatch(/value="!\[photo\]\(\/media\/[^)]+\/w1280\.webp\)"/);
    const id = /data-upload-id="([^"]+)"/.exec(html)?.[1];
    expect(await ann.post(`/uploads/${id}/delete`)).toMatchObject({ status: 303, location: "/uploads" });
    expect(await count()).toBe(0);
  });

  test("a picture that is only for its owner says so, and offers no words for an article", async () => {
    const page = await ann.get("/uploads");
    expect(await submit(photo, { token: tokenOf(page.html), visibility: "private" })).toMatchObject({ status: 303 });
    await expect
      .poll(async () => (await ann.get("/uploads")).html, { timeout: 20_000 })
      .toMatch(/<img class="upload-media" src="\/private\/[^"]+&amp;signature=[\w-]{43}"/);
    const { html } = await ann.get("/uploads");
    expect(html).toContain("Picture, only for you");
    expect(html).not.toContain("To show it in an article");
    const id = /data-upload-id="([^"]+)"/.exec(html)?.[1];
    await ann.post(`/uploads/${id}/delete`);
  });

  test("the form is this site's own, or refused before anything is stored", async () => {
    const token = tokenOf((await ann.get("/uploads")).html);
    const other = tokenOf((await signUp(conduit.url, "carla").then((carla) => carla.get("/uploads"))).html);
    for (const refused of [
      {},
      { token: "" },
      { token: other },
      // The token must be there before the file.
      { token, isTokenLast: true },
      { token, headers: { "sec-fetch-site": "cross-site" } },
      { token, headers: { "sec-fetch-site": "same-site" } },
      { token, headers: { origin: "https://evil.example" } },
    ]) {
      expect((await submit(photo, refused)).status).toBe(403);
    }
    expect(await count()).toBe(0);
    for (const taken of [
      { token },
      { headers: { "sec-fetch-site": "same-origin" } },
      { headers: { origin: conduit.url } },
      { headers: { "x-csrf-token": token } },
    ]) {
      expect((await submit(photo, taken)).status).toBe(303);
    }
    expect(await count()).toBe(4);
  });

  test("the API, too, takes the cookie of this site's pages only", async () => {
    const send = async (headers: Record<string, string>) => {
      const body = new FormData();
      body.append("file", new Blob([new Uint8Array(photo)]), "photo.jpg");
      const answer = await fetch(`${conduit.url}/api/uploads?purpose=image`, {
        method: "POST",
        body,
        headers: { cookie: ann.cookie, ...headers },
      });
      await answer.arrayBuffer();
      return answer.status;
    };
    expect(await send({})).toBe(403);
    expect(await send({ "sec-fetch-site": "cross-site" })).toBe(403);
    expect(await send({ "x-csrf-token": "wrong" })).toBe(403);
    expect(await send({ "x-csrf-token": tokenOf((await ann.get("/uploads")).html) })).toBe(202);
  });

  test("what was wrong stands on the page, and a strange way back leads nowhere else", async () => {
    const token = tokenOf((await ann.get("/uploads")).html);
    const refused = await submit(Buffer.from("just text"), { token });
    expect([refused.status, refused.html]).toEqual([415, expect.stringMatching(/role="alert".*file is of no kind/s)]);
    expect((await submit(photo, { token, purpose: "nothing" })).status).toBe(422);
    expect((await submit(photo, { token, next: "https://evil.example/" })).location).toBe("/uploads");
    expect((await submit(photo, { token, next: "//evil.example/" })).location).toBe("/uploads");
  });

  test("an avatar is shown to everybody", async () => {
    const token = tokenOf((await ann.get("/settings")).html);
    expect((await submit(photo, { token, purpose: "avatar", next: "/settings" })).location).toBe("/settings");
    await expect
      .poll(async () => (await ann.get("/settings")).html, { timeout: 20_000 })
      .toMatch(/<img class="user-img" src="\/media\/[^"]+\/a256\.webp"/);
    const settings = await ann.get("/settings");
    const image = /name="image" type="text" value="([^"]+)"/.exec(settings.html)?.[1] ?? "";
    const fields = { username: "ann", email: "ann@example.com", bio: "", image };
    expect((await ann.post("/settings", fields)).status).toBe(303);
    expect((await fetch(conduit.url + image)).status).toBe(200);
  });

  test("a signed-out visitor is led to sign in", async () => {
    const answer = await fetch(`${conduit.url}/uploads`, { redirect: "manual" });
    expect([answer.status, answer.headers.get("location")]).toEqual([303, "/login?next=%2Fuploads"]);
  });
});

const program = findChromium();
const reason = program === undefined ? " [not run: no Chromium found; install it or set CHROMIUM_PATH]" : "";

describe.skipIf(program === undefined)(`in Chromium${reason}`, () => {
  let browser: Browser;
  let folder: string;
  let someone: Person;
  let page: Page;

  beforeAll(async () => {
    [browser, folder] = await Promise.all([launch(program as string), mkdtemp(join(tmpdir(), "conduit-files-"))]);
    await Promise.all([writeFile(join(folder, "photo.jpg"), photo), writeFile(join(folder, "film.mp4"), film)]);
    someone = await person(browser, conduit.url, { viewport: { width: 1_000, height: 800 } });
    page = someone.page;
    await page.goto("/register");
    await page.fill("input[name=username]", "browser");
    await page.fill("input[name=email]", "browser@example.com");
    await page.fill("input[name=password]", "correct horse");
    await Promise.all([page.waitForURL("**/"), page.click('button:has-text("Sign up")')]);
  });
  afterAll(async () => {
    await browser?.close();
    await rm(folder, { recursive: true, force: true });
  });

  test("a video becomes playable without a reload, and plays", { timeout: 60_000 }, async () => {
    await page.goto("/uploads");
    await page.evaluate("window.isTheSamePage = true");
    await page.setInputFiles("input[type=file]", join(folder, "film.mp4"));
    await page.click('button:has-text("Upload video")');
    const player = page.locator(".upload video");
    await player.waitFor({ timeout: 40_000 });
    expect(await page.evaluate("window.isTheSamePage")).toBe(true);
    // Whether this browser has the codec is its own affair; that it may load the file is ours.
    const sizes = await page.evaluate(
      `fetch(document.querySelector(".upload video").src, { headers: { range: "bytes=0-99" } }).then(async (answer) => [answer.status, (await answer.arrayBuffer()).byteLength])`,
    );
    expect(sizes).toEqual([206, 100]);
    expect(someone.troubles).toEqual([]);
  });

  test("a picture is put into an article from the editor", { timeout: 60_000 }, async () => {
    await page.goto("/editor");
    await page.fill("input[name=title]", "With a picture");
    await page.fill("input[name=description]", "About");
    await page.fill("textarea[name=body]", "Before");
    await page.setInputFiles('input[data-purpose="image"]', join(folder, "photo.jpg"));
    await expect
      .poll(() => page.inputValue("textarea[name=body]"), { timeout: 30_000 })
      .toMatch(/^Before\n\n!\[photo\]\(\/media\/.*w1280\.webp\)\n$/);
    await page.setInputFiles('input[data-purpose="video"]', join(folder, "film.mp4"));
    await expect
      .poll(() => page.inputValue("textarea[name=body]"), { timeout: 30_000 })
      .toMatch(/!\[film\]\(\/media\/.*video\.mp4\)\n$/);
    await expect
      .poll(() => page.locator("[data-insert] [data-progress-text]").textContent(), { timeout: 30_000 })
      .toBe("Done.");
    await Promise.all([page.waitForURL(/\/article\//), page.click('button:has-text("Publish Article")')]);
    await page.locator(".article-content picture img").scrollIntoViewIfNeeded();
    const ofImage = (what: string) => page.evaluate(`document.querySelector(".article-content picture img").${what}`);
    await expect.poll(() => ofImage("naturalWidth"), { timeout: 10_000 }).toBe(1_280);
    expect(await ofImage("currentSrc")).toMatch(/w1280\.avif$/);
    expect(await page.locator(".article-content video").getAttribute("poster")).toMatch(/poster\.webp$/);
    expect(someone.troubles).toEqual([]);
  });

  test("an avatar is shown as soon as it is made", { timeout: 60_000 }, async () => {
    await page.goto("/settings");
    await page.setInputFiles("#file-avatar", join(folder, "photo.jpg"));
    await page.click('button:has-text("Upload profile picture")');
    await expect
      .poll(() => page.locator(".navbar .user-img").getAttribute("src"), { timeout: 20_000 })
      .toMatch(/a256\.webp$/);
    expect(await page.inputValue("input[name=image]")).toMatch(/a256\.webp$/);
    await Promise.all([page.waitForURL(/\/profile\//), page.click('button:has-text("Update Settings")')]);
    expect(await page.locator(".user-info .user-img").getAttribute("src")).toMatch(/a256\.webp$/);
    expect(someone.troubles).toEqual([]);
  });

  test("a file that is none of those is refused in words", async () => {
    await page.goto("/uploads");
    await writeFile(join(folder, "lie.jpg"), "no picture at all");
    await page.setInputFiles("input[type=file]", join(folder, "lie.jpg"));
    await page.click('button:has-text("Upload picture")');
    await expect.poll(() => page.locator("[data-progress-text]").textContent()).toMatch(/^The file is of no kind/);
    const mine = (await page.evaluate("fetch('/api/uploads').then((answer) => answer.json())")) as {
      uploads: Upload[];
    };
    expect(mine.uploads.every(({ name }) => name !== "lie.jpg")).toBe(true);
  });
});
