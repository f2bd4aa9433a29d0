import { readFile, stat } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { homePage } from "../../src/ui/views/home.ts";
import { accountWith, articleWith, everyPage, pageWith, scriptAddresses, visitBy } from "./support/fixtures.ts";
import { attributeOf, dangersIn, type Element, elementsOf, payloads, textOf } from "./support/inspect.ts";

const assetFile = (name: string) => new URL(`../../src/ui/assets/${name}`, import.meta.url);

describe("every page", () => {
  test.each(payloads)("with %j in every field has nothing that runs", (payload) => {
    for (const [name, page] of Object.entries(everyPage(payload))) {
      expect(dangersIn(`<!doctype html>${page.text}`, scriptAddresses), name).toEqual([]);
    }
  });

  test("with any text in every field has nothing that runs, and shows the text", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", minLength: 1, maxLength: 40 }), (text) => {
        for (const [name, page] of Object.entries(everyPage(text)))
          expect(dangersIn(page.text, scriptAddresses), name).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });

  test.each(Object.entries(everyPage("plain")))(
    "%s: one first-level heading, landmarks, labels, unique ids",
    (_name, page) => {
      const elements = elementsOf(`<!doctype html>${page.text}`);
      const named = (tag: string) => elements.filter(({ tagName }) => tagName === tag);
      expect(elements.filter((element) => levelOf(element) === 1)).toHaveLength(1);
      expect(named("main")).toHaveLength(1);
      expect(named("nav").every((nav) => attributeOf(nav, "aria-label") !== undefined)).toBe(true);
      expect(attributeOf(named("html")[0] as Element, "lang")).toBe("en");
      const labelled = new Set(named("label").map((label) => attributeOf(label, "for")));
      for (const field of [...named("input"), ...named("textarea")]) {
        const type = attributeOf(field, "type");
        if (type === "hidden" || type === "checkbox") continue;
        expect(labelled, attributeOf(field, "name")).toContain(attributeOf(field, "id"));
      }
      for (const button of named("button"))
        expect(`${attributeOf(button, "aria-label") ?? ""}${textOf(button)}`.trim()).not.toBe("");
      const ids = elements.map((element) => attributeOf(element, "id")).filter((id) => id !== undefined);
      expect(new Set(ids).size).toBe(ids.length);
    },
  );

  test.each(Object.entries(everyPage("plain")))(
    "%s: every form that posts carries the token of the session",
    (_name, page) => {
      const forms = elementsOf(page.text).filter(({ tagName }) => tagName === "form");
      const tokens = elementsOf(page.text).filter((element) => attributeOf(element, "name") === "_csrf");
      expect(tokens).toHaveLength(forms.length);
      for (const form of forms) expect(attributeOf(form, "method")).toBe("post");
    },
  );
});

test("a password is never sent back", () => {
  for (const page of Object.values(everyPage("plain"))) {
    for (const field of elementsOf(page.text).filter((element) => attributeOf(element, "type") === "password")) {
      expect(attributeOf(field, "value") ?? "").toBe("");
    }
  }
});

test("what was refused is listed with links to its fields, and takes the focus", () => {
  const elements = elementsOf((everyPage("plain")["sign up"] as { text: string }).text);
  const summary = elements.filter((element) => attributeOf(element, "autofocus") !== undefined);
  expect(summary).toHaveLength(1);
  expect(attributeOf(summary[0] as Element, "tabindex")).toBe("-1");
  const items = elements.filter(({ tagName }) => tagName === "li").map(textOf);
  expect(items).toContain("username plain");
  expect(elements.some((element) => attributeOf(element, "href") === "#field-username")).toBe(true);
});

test("pagination shows the first, the last, the current page and its neighbours", () => {
  const page = homePage(visitBy(), { page: pageWith("plain"), number: 9, feed: { tag: "a&b" }, tags: [] });
  const links = elementsOf(page.text).filter((element) => attributeOf(element, "class") === "page-link");
  expect(links.map(textOf)).toEqual(["1", "7", "8", "9", "10", "11", "20"]);
  expect(attributeOf(links[1] as Element, "href")).toBe("/?tag=a%26b&page=7");
  expect(links.filter((link) => attributeOf(link, "aria-current") === "page").map(textOf)).toEqual(["9"]);
});

describe("size and speed", () => {
  const text = "A title of the usual length, as people write them";
  const articles = Array.from({ length: 10 }, (_, index) => ({
    ...articleWith(text, `a-title-of-the-usual-length-${index}`),
    description: "What it is about, in two lines of a phone's screen. ".repeat(3),
    tagList: ["one", "two", "three"],
    author: { username: `author ${index}`, bio: "", image: "", following: false },
  }));
  const content = {
    page: { articles, articlesCount: 500 },
    number: 1,
    feed: "global",
    tags: Array.from({ length: 20 }, (_, index) => `tag-${index}`),
  } as const;
  const viewer = { ...accountWith("reader"), image: "" };

  test("the front page is under 40 KB, its style under 25 KB, its script under 6 KB", async () => {
    expect(Buffer.byteLength(homePage(visitBy(viewer), content).text)).toBeLessThan(40_000);
    expect((await stat(assetFile("app.css"))).size).toBeLessThan(25_000);
    expect((await stat(assetFile("app.js"))).size).toBeLessThan(6 * 1024);
  });

  test("the front page renders within 2 ms", () => {
    const times = Array.from({ length: 300 }, () => {
      const start = performance.now();
      homePage(visitBy(viewer), content);
      return performance.now() - start;
    }).sort((a, b) => a - b);
    expect(times[150]).toBeLessThan(2);
  });
});

test("text has a contrast of at least 4.5:1 on every ground it stands on, in light and dark (WCAG 2.2 AA)", async () => {
  const style = await readFile(assetFile("app.css"), "utf8");
  const [light, dark] = [...style.matchAll(/:root \{([^}]*)\}/g)].map(([, body]) => coloursOf(body ?? ""));
  const pairs = [
    ["ink", "paper"],
    ["ink", "sheet"],
    ["ink", "code"],
    ["ink-soft", "paper"],
    ["ink-soft", "sheet"],
    ["accent", "paper"],
    ["accent", "sheet"],
    ["accent-strong", "accent-soft"],
    ["on-accent", "accent"],
    ["on-accent", "accent-strong"],
    ["heart", "paper"],
    ["heart", "sheet"],
    ["heart", "heart-soft"],
    ["danger", "danger-soft"],
    ["danger", "paper"],
    ["danger", "sheet"],
    ["banner-ink", "banner"],
    ["banner-soft", "banner"],
    ["paper", "ink"],
  ] as const;
  for (const colours of [light, { ...light, ...dark }]) {
    for (const [front, ground] of pairs) {
      const ratio = contrast(colours?.[front] ?? "", colours?.[ground] ?? "");
      expect(ratio, `${front} on ${ground}`).toBeGreaterThanOrEqual(4.5);
    }
    // Borders of controls need 3:1.
    expect(contrast(colours?.["line-strong"] ?? "", colours?.["sheet"] ?? "")).toBeGreaterThanOrEqual(3);
  }
  expect(contrast("#000000", "#ffffff")).toBeCloseTo(21);
});

function levelOf(element: Element): number | undefined {
  if (!/^h[1-6]$/.test(element.tagName)) return undefined;
  return Number(attributeOf(element, "aria-level") ?? element.tagName[1]);
}

function coloursOf(body: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    [...body.matchAll(/--([a-z-]+): (#[0-9a-f]{6});/g)].map(([, name, colour]) => [name, colour]),
  );
}

/** https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio */
function contrast(front: string, ground: string): number {
  const luminance = (colour: string) => {
    const [red = Number.NaN, green = Number.NaN, blue = Number.NaN] = [1, 3, 5].map((at) => {
      const part = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const [lighter, darker] = [luminance(front), luminance(ground)].sort((a, b) => b - a) as [number, number];
  return (lighter + 0.05) / (darker + 0.05);
}
