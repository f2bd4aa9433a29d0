import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { readingMinutes, renderMarkdown } from "../../src/ui/markdown.ts";
import { attributeOf, dangersIn, elementsOf, payloads } from "./support/inspect.ts";

const render = (source: string) => renderMarkdown(source).text;

describe("what it renders", () => {
  test("headings rank below the page's title", () => {
    expect(render("# A\n\n###### B")).toBe('<h1 aria-level="2">A</h1>\n<h6 aria-level="6">B</h6>\n');
  });

  test("lists, emphasis, code, quotes and tables", () => {
    expect(render("- *a*\n- **b**")).toContain("<li><em>a</em></li>");
    expect(render("`<b>`")).toBe("<p><code>&lt;b&gt;</code></p>\n");
    expect(render("```js\n<b>\n```")).toBe('<pre tabindex="0"><code>&lt;b&gt;\n</code></pre>\n');
    expect(render("> a")).toContain("<blockquote>");
    expect(render("|a|\n|-|\n|b|")).toContain("<td>b</td>");
    expect(render("|a|\n|-:|\n|b|")).toContain('<td class="align-right">b</td>');
  });

  test("links of other sites are marked as written by users, those of this site are not", () => {
    expect(render("[a](https://a.example)")).toContain('<a href="https://a.example" rel="nofollow ugc noopener">');
    expect(render("[a](mailto:a@b.example)")).toContain('rel="nofollow ugc noopener"');
    expect(render("[a](/article/b)")).toBe('<p><a href="/article/b">a</a></p>\n');
  });

  test("a link without a target stays on the page", () => {
    expect(render("[a]()")).toBe('<p><a href="#">a</a></p>\n');
  });

  test("images come by https or from this site; others leave their text", () => {
    expect(render("![a](https://a.example/b.png)")).toContain(
      '<img src="https://a.example/b.png" alt="a" loading="lazy"',
    );
    expect(render("![a](/uploads/b.png)")).toContain('<img src="/uploads/b.png"');
    expect(render("![a <b>](http://a.example/b.png)")).toBe("<p>a &lt;b&gt;</p>\n");
  });

  test("raw HTML is shown as text", () => {
    expect(render("a <b onclick='x'>b</b>\n\n<div>c</div>")).not.toMatch(/<b|<div/);
  });
});

describe("what it never lets through", () => {
  test.each(payloads)("%j", (payload) => {
    expect(dangersIn(render(payload))).toEqual([]);
    expect(dangersIn(render(`a\n\n${payload}\n\nb`))).toEqual([]);
  });

  test("the check sees planted dangers", () => {
    for (const planted of [
      "<script>alert(1)</script>",
      "<img src=x onerror=alert(1)>",
      "<a href='javascript:alert(1)'>x</a>",
      "<a href=' javascript:alert(1)'>x</a>",
      "<p style='x'>",
      "<iframe></iframe>",
      "<img src='http://a.example/x.png'>",
      "<img src='data:image/svg+xml;base64,x'>",
      "<a href='//evil.example'>x</a>",
    ]) {
      expect(dangersIn(planted), planted).not.toEqual([]);
    }
  });

  test("pieces of payloads and Markdown in any order make allowed elements with allowed attributes only", () => {
    const marks = [
      "[",
      "](",
      ")",
      "![",
      "<",
      ">",
      "`",
      "```\n",
      "\n\n",
      "\n",
      "> ",
      "- ",
      "# ",
      "|",
      "\n|-|\n",
      "|a|\n|-:|\n|b|",
      '"',
      "'",
      "\\",
      "&",
      "*",
      "_",
      "~~",
      "javascript:",
      "https://a.example",
      "//",
      "onerror=",
      "[x]: ",
    ];
    const pieces = fc.array(
      fc.oneof(fc.constantFrom(...payloads), fc.constantFrom(...marks), fc.string({ maxLength: 6 })),
      { maxLength: 12 },
    );
    const allowedTags = new Set(
      "html head body h1 h2 h3 h4 h5 h6 p a em strong s code pre blockquote ul ol li hr br img table thead tbody tr th td div".split(
        " ",
      ),
    );
    const allowedAttributes: Readonly<Record<string, readonly string[]>> = {
      a: ["href", "rel", "title"],
      img: ["src", "alt", "title", "loading", "decoding", "referrerpolicy"],
      ol: ["start"],
      pre: ["tabindex"],
      th: ["class"],
      td: ["class"],
      div: ["class", "tabindex", "role", "aria-label"],
    };
    fc.assert(
      fc.property(pieces, (parts) => {
        const rendered = render(parts.join(""));
        expect(dangersIn(rendered)).toEqual([]);
        for (const element of elementsOf(rendered)) {
          expect(allowedTags).toContain(element.tagName);
          const allowed = /^h[1-6]$/.test(element.tagName)
            ? ["aria-level"]
            : (allowedAttributes[element.tagName] ?? []);
          for (const { name } of element.attrs) expect(allowed, element.tagName).toContain(name);
          if (element.tagName === "a")
            expect(attributeOf(element, "href")).toMatch(/^(?:https?:\/\/|mailto:|\/(?!\/)|#|\?)/i);
        }
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("how much work it does", () => {
  const size = 65_536;
  const fill = (piece: string) => piece.repeat(Math.ceil(size / piece.length)).slice(0, size);
  const hard: Readonly<Record<string, string>> = {
    prose: fill("Hello **world**, this is [a link](https://a.example) and `code` and _words_.\n\n"),
    underscores: fill("a_"),
    stars: fill("*a **a "),
    "stars in words": fill("a**b"),
    mixed: fill("*a_b"),
    brackets: fill("["),
    "open links": fill("[a](b"),
    "open images": fill("!["),
    quotes: fill("> "),
    "quotes without space": fill(">"),
    lists: fill("- "),
    "numbered lists": fill("1. "),
    "quoted lists": fill("> - "),
    backticks: Array.from({ length: 360 }, (_, index) => "`".repeat(index)).join("a"),
    "less-than": fill("<"),
    comments: fill("<!--"),
    references: `[a]: b\n${fill("[a] ")}`.slice(0, size),
    headings: fill("# a\n"),
    table: fill("|a|b|\n|-|-|\n"),
    "wide table": `|${"a|".repeat(16_000)}\n|${"-|".repeat(16_000)}`,
  };

  // Processor time, since other work on the machine says nothing about ours. Prose takes 40 ms, the worst of these about
  // 130 ms; the limit leaves room for a slower machine. Quadratic work takes seconds (marked: 4,200 ms for underscores).
  test.each(Object.entries(hard))("64 KiB of %s stay within 400 ms", (_name, source) => {
    const samples = [0, 1, 2].map((round) => {
      const start = process.cpuUsage();
      // A leading line break makes each round a text that the cache has not seen.
      renderMarkdown("\n".repeat(round + 1) + source);
      return process.cpuUsage(start).user / 1_000;
    });
    expect(Math.min(...samples)).toBeLessThan(400);
  });

  test("a text that was rendered comes from the cache, and thousands of others push it out", () => {
    const source = fill("Hello **world**. ");
    const first = renderMarkdown(source);
    expect(renderMarkdown(source)).toBe(first);
    for (let index = 0; index < 600; index++) renderMarkdown(`text ${index}`);
    expect(renderMarkdown(source)).not.toBe(first);
    expect(renderMarkdown(source).text).toBe(first.text);
  });
});

test("reading time counts words of any script, at least one minute", () => {
  expect(readingMinutes("")).toBe(1);
  expect(readingMinutes("word ".repeat(690))).toBe(3);
  expect(readingMinutes("слово ".repeat(460))).toBe(2);
});
