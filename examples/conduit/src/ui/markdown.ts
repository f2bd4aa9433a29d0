/**
 * Markdown to HTML that runs nothing: raw HTML is shown as text, every element is made by the renderer, links lead to
 * http, https, mailto or this site, images come by https or from this site, and videos only from this site's uploads.
 *
 * markdown-it because its work grows with the input's length: 64 KiB of `a_` takes it 40 ms, and marked 4.2 s.
 */
import MarkdownIt from "markdown-it";
import { type SafeHtml, trusted } from "./html.ts";

/** Rendered texts kept, and their size in characters (source and result together); the oldest go first. */
const cachedTextsMax = 500;
const cachedCharactersMax = 8_000_000;

const markdown = new MarkdownIt("default", { html: false, linkify: false, typographer: false, maxNesting: 40 });

markdown.validateLink = (url) => isSafeLink(url);

const { rules } = markdown.renderer;

rules["link_open"] = (tokens, index, options, _env, self) => {
  const token = tokens[index];
  // `[a]()` names no target, and an empty address would reload the page.
  if (token?.attrGet("href") === "") token.attrSet("href", "#");
  if (token !== undefined && !isOfThisSite(String(token.attrGet("href") ?? ""))) {
    token.attrSet("rel", "nofollow ugc noopener");
  }
  return self.renderToken(tokens, index, options);
};

const renderImage = rules["image"];
rules["image"] = (tokens, index, options, env, self) => {
  const token = tokens[index];
  const source = String(token?.attrGet("src") ?? "");
  if (token === undefined || renderImage === undefined || !isSafeImage(source)) {
    return markdown.utils.escapeHtml(token?.content ?? "");
  }
  token.attrSet("loading", "lazy");
  token.attrSet("decoding", "async");
  token.attrSet("referrerpolicy", "no-referrer");
  const own = ownUpload.exec(source);
  if (own?.[2] === "video.mp4") return renderVideo(own, self.renderInlineAsText(token.children ?? [], options, env));
  const image = renderImage(tokens, index, options, env, self);
  if (own === null) return image;
  const { escapeHtml } = markdown.utils;
  return `<picture><source type="image/avif" srcset="${escapeHtml(source.replace(/webp$/, "avif"))}">${image}</picture>`;
};

/** A picture or a video uploaded here; each picture of WebP has one of AVIF beside it, each video a still picture. */
const ownUpload = /^(\/media\/[0-9a-f-]{36}\/[0-9a-f-]{36}\/)(video\.mp4|(?:w1280|w640)\.webp)$/;

function renderVideo([source = "", folder = ""]: RegExpExecArray, caption: string): string {
  return `<video controls playsinline preload="metadata" poster="${folder}poster.webp" src="${source}" aria-label="${markdown.utils.escapeHtml(caption)}"></video>`;
}

// The page's title is its first-level heading: those of the text rank below it.
rules["heading_open"] = (tokens, index, options, _env, self) => {
  const token = tokens[index];
  token?.attrSet("aria-level", String(Math.min(Number(token.tag.slice(1)) + 1, 6)));
  return self.renderToken(tokens, index, options);
};

// Wide tables and code scroll by themselves; a focusable box lets the keyboard do it.
rules["fence"] = rules["code_block"] = (tokens, index) =>
  `<pre tabindex="0"><code>${markdown.utils.escapeHtml(tokens[index]?.content ?? "")}</code></pre>\n`;
rules["table_open"] = () => '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>\n';
rules["table_close"] = () => "</table></div>\n";

// A column's alignment comes as a style, which the page's policy refuses: a class says the same.
for (const rule of ["th_open", "td_open"]) {
  rules[rule] = (tokens, index) => {
    const token = tokens[index];
    const side = /(left|center|right)$/.exec(String(token?.attrGet("style") ?? ""))?.[1];
    return side === undefined ? `<${token?.tag}>` : `<${token?.tag} class="align-${side}">`;
  };
}

const cache = new Map<string, SafeHtml>();
let cachedCharacters = 0;

/** Renders a text as typed. Texts seen lately come from a bounded cache. */
export function renderMarkdown(source: string): SafeHtml {
  const known = cache.get(source);
  if (known !== undefined) {
    cache.delete(source);
    cache.set(source, known);
    return known;
  }
  const rendered = trusted(markdown.render(source));
  cache.set(source, rendered);
  cachedCharacters += source.length + rendered.text.length;
  for (const [oldSource, old] of cache) {
    if (cache.size <= cachedTextsMax && cachedCharacters <= cachedCharactersMax) break;
    cache.delete(oldSource);
    cachedCharacters -= oldSource.length + old.text.length;
  }
  return rendered;
}

/** How long a text takes to read, in whole minutes, at least 1; at 230 words a minute (Brysbaert 2019, 238). */
export function readingMinutes(source: string): number {
  let words = 0;
  for (const _ of source.matchAll(/[\p{L}\p{N}]+/gu)) words++;
  return Math.max(1, Math.round(words / 230));
}

function isOfThisSite(url: string): boolean {
  return /^(?:\/(?![/\\])|#|\?)/.test(url);
}

function isSafeLink(url: string): boolean {
  return isOfThisSite(url) || /^(?:https?:\/\/|mailto:)/i.test(url);
}

function isSafeImage(url: string): boolean {
  return isOfThisSite(url) || /^https:\/\//i.test(url);
}
