import fc from "fast-check";
import { parseFragment } from "parse5";
import { describe, expect, test } from "vitest";
import { attributes, html, type SafeHtml, trusted } from "../../src/ui/html.ts";

const hostile = `<script>alert("1")</script>&'`;

describe("html", () => {
  test("escapes text and quoted attributes", () => {
    expect(html`<p title="${hostile}">${hostile}</p>`.text).toBe(
      '<p title="&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;">&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;</p>',
    );
  });

  test("keeps markup of its own, joins lists, and leaves out undefined, null and false but not 0", () => {
    const items = ["a", "<b>"].map((item) => html`<li>${item}</li>`);
    expect(html`<ul>${items}</ul>${undefined}${null}${false}${0}${trusted("<hr>")}`.text).toBe(
      "<ul><li>a</li><li>&lt;b&gt;</li></ul>0<hr>",
    );
  });

  test("any text comes back from the parser as it was, in text and in an attribute", () => {
    const text = fc.oneof(
      fc.string({ unit: "grapheme" }),
      fc.string(),
      fc.constantFrom(hostile, "&amp;", "&#x3C;", "]]>"),
    );
    fc.assert(
      fc.property(text, (sample) => {
        // The parser itself replaces NUL and folds line ends, in every document.
        fc.pre(!/[\0\r]/.test(sample));
        const { childNodes } = parseFragment(html`<p title="${sample}">${sample}</p>`.text);
        expect(childNodes).toHaveLength(1);
        const [node] = childNodes;
        if (node === undefined || !("attrs" in node)) throw new Error("The paragraph is gone.");
        expect(node.attrs).toEqual([{ name: "title", value: sample }]);
        const [content] = node.childNodes;
        expect(content === undefined ? "" : "value" in content && content.value).toBe(sample);
      }),
      { numRuns: 500 },
    );
  });

  test.each([
    ["an unquoted attribute", () => html`<p title=${"x"}></p>`],
    ["a tag name", () => html`<${"p"}></p>`],
    ["a closing tag's name", () => html`<p></${"p"}>`],
    ["an attribute's name", () => html`<p ${"title"}="x"></p>`],
    ["a script", () => html`<script>${"x"}</script>`],
    ["a style", () => html`<style>p { color: ${"x"} }</style>`],
    ["a comment", () => html`<!-- ${"x"} -->`],
    ["a handler", () => html`<p onclick="${"x"}"></p>`],
    ["a style attribute", () => html`<p style="${"x"}"></p>`],
    ["markup in an attribute", () => html`<p title="${trusted("<b>")}"></p>`],
    ["attributes in text", () => html`<p>${attributes({ hidden: true })}</p>`],
    ["a handler among attributes", () => attributes({ onclick: "x" })],
    ["an address among attributes", () => attributes({ href: "x" })],
  ] as const)("refuses a value as %s", (_place, make: () => SafeHtml) => {
    expect(make).toThrow(TypeError);
  });

  test("addresses that could run something become about:invalid", () => {
    for (const address of [
      "javascript:alert(1)",
      " javascript:alert(1)",
      "data:text/html,x",
      "vbscript:x",
      "JaVaScRiPt:x",
      "x",
    ]) {
      expect(html`<a href="${address}">x</a>`.text).toBe('<a href="about:invalid">x</a>');
    }
    for (const address of [
      "/a",
      "#a",
      "?a=b",
      "https://a.example/",
      "mailto:a@b.example",
      "data:image/svg+xml,%3Csvg%3E",
    ]) {
      expect(html`<a href="${address}">x</a>`.text).toContain(`href="${address}"`);
    }
  });

  test("attributes() gives names, values, and nothing for false", () => {
    const list = attributes({ required: true, hidden: false, "aria-label": 'a "b"', maxlength: 5, title: undefined });
    expect(html`<input${list}>`.text).toBe('<input required aria-label="a &quot;b&quot;" maxlength="5">');
  });
});
