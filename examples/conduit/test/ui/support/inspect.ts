/** Looks at HTML as a browser would, for what could run and for what assistive technology relies on. */
import { type DefaultTreeAdapterTypes, parse } from "parse5";

type Node = DefaultTreeAdapterTypes.Node;
export type Element = DefaultTreeAdapterTypes.Element;

/** Every element of a document, in order. */
export function elementsOf(document: string): readonly Element[] {
  const found: Element[] = [];
  const visit = (node: Node) => {
    if ("tagName" in node) found.push(node);
    if ("childNodes" in node) for (const child of node.childNodes) visit(child);
    if ("content" in node) visit(node.content);
  };
  visit(parse(document));
  return found;
}

export function attributeOf(element: Element, name: string): string | undefined {
  return element.attrs.find((attribute) => attribute.name === name)?.value;
}

/** The text below an element. */
export function textOf(node: Node): string {
  if ("value" in node) return node.value;
  return "childNodes" in node ? node.childNodes.map(textOf).join("") : "";
}

const runningTags = new Set([
  "iframe",
  "object",
  "embed",
  "applet",
  "base",
  "svg",
  "math",
  "style",
  "template",
  "frame",
  "frameset",
  "noscript",
]);
const addressAttributes = new Set([
  "href",
  "src",
  "action",
  "formaction",
  "data",
  "poster",
  "srcset",
  "ping",
  "background",
  "xlink:href",
]);
const harmless = /^(?:\/(?![/\\])|#|\?|https?:\/\/|mailto:|about:invalid$)/i;

/** What could run or load more than it should: empty for a safe document. `scripts`: addresses of the scripts that belong. */
export function dangersIn(document: string, scripts: readonly string[] = []): readonly string[] {
  const dangers: string[] = [];
  for (const element of elementsOf(document)) {
    const { tagName, attrs } = element;
    if (runningTags.has(tagName)) dangers.push(`<${tagName}>`);
    if (tagName === "script" && (!scripts.includes(attributeOf(element, "src") ?? "") || textOf(element) !== ""))
      dangers.push("<script>");
    if (tagName === "meta" && attributeOf(element, "http-equiv") !== undefined) dangers.push("<meta http-equiv>");
    for (const { name, value } of attrs) {
      if (name.startsWith("on") || name === "style" || name === "srcdoc") dangers.push(`${name}="${value}"`);
      if (!addressAttributes.has(name)) continue;
      const isDrawn = tagName === "img" && /^data:image\/svg\+xml,%3Csvg/.test(value);
      const isOpenImage = tagName === "img" && /^http:/i.test(value);
      if ((!harmless.test(value) && !isDrawn) || isOpenImage) dangers.push(`${name}="${value}"`);
    }
  }
  return dangers;
}

/** Texts that have broken out of templates and Markdown renderers elsewhere (OWASP's filter evasion list and kin). */
export const payloads: readonly string[] = [
  "<script>alert(1)</script>",
  "</script><script>alert(1)</script>",
  '"><img src=x onerror=alert(1)>',
  "'><svg/onload=alert(1)>",
  "javascript:alert(1)",
  "JaVaScRiPt:alert(1)",
  "java\tscript:alert(1)",
  "\u0001javascript:alert(1)",
  "data:text/html,<script>alert(1)</script>",
  "data:image/svg+xml,<svg onload=alert(1)>",
  "vbscript:msgbox(1)",
  'https://a.example/" onerror="alert(1)',
  "https://a.example/x.png' onerror='alert(1)",
  "</textarea><script>alert(1)</script>",
  "</title><script>alert(1)</script>",
  "</style><script>alert(1)</script>",
  "<!--><script>alert(1)</script>-->",
  "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
  "<a href='javascript:alert(1)'>x</a>",
  "<math><mi xlink:href='data:x,<script>alert(1)</script>'>",
  "<body onload=alert(1)>",
  "<base href='https://evil.example/'>",
  "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
  "<object data='javascript:alert(1)'></object>",
  "<form action='javascript:alert(1)'><button>x</button></form>",
  "<details open ontoggle=alert(1)>",
  "<style>@import 'https://evil.example/x.css';</style>",
  "` onmouseover=alert(1) `",
  "&lt;script&gt;alert(1)&lt;/script&gt;",
  "&#x3C;script&#x3E;alert(1)&#x3C;/script&#x3E;",
  "\u2028<script>alert(1)</script>",
  "<scr\0ipt>alert(1)</scr\0ipt>",
  "${alert(1)}{{constructor.constructor('alert(1)')()}}",
  "[x](javascript:alert(1))",
  "[x](<javascript:alert(1)>)",
  "[x](JAVASCRIPT&colon;alert(1))",
  "[x](&#106;avascript:alert(1))",
  "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
  '[x](//evil.example "><img src=x onerror=alert(1)>")',
  '[x](https://a.example "\\" onmouseover=\\"alert(1)")',
  "![x](javascript:alert(1))",
  '![x](https://a.example/x.png"onerror="alert(1))',
  '!["onerror="alert(1)](https://a.example/x.png)',
  "![x](http://a.example/x.png)",
  "![x](data:image/svg+xml;base64,PHN2Zy8+)",
  "<javascript:alert(1)>",
  "[x]: javascript:alert(1)\n\n[x]",
  '```"><script>alert(1)</script>\ncode\n```',
  "# <img src=x onerror=alert(1)>",
  "| <script>alert(1)</script> |\n|---|\n| <img src=x onerror=alert(1)> |",
];
