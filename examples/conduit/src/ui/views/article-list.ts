/** A page of article previews with its pagination. */
import type { ArticlePage, ArticlePreview } from "../../domain/model.ts";
import { address } from "../address.ts";
import { attributes, type HtmlValue, html, type SafeHtml } from "../html.ts";
import type { Visit } from "../visit.ts";
import { anchorOf, avatar, heartButton, tagList, time } from "./parts.ts";

/** Articles on one page. */
export const articlesPerPage = 10;
/** The last page that can be asked for: the domain gives articles up to an offset of 10,000. */
export const pageMax = 1_000;
/** Tags shown in a preview; the article itself shows all. */
const previewTagsMax = 8;

export interface ArticleListContent {
  readonly page: ArticlePage;
  /** Counts from 1. */
  readonly number: number;
  /** Address of a page of this list. */
  readonly pageAddress: (number: number) => string;
  /** What to say when there is nothing. */
  readonly empty: HtmlValue;
}

export function articleList(visit: Visit, { page, number, pageAddress, empty }: ArticleListContent): SafeHtml {
  if (page.articles.length === 0) {
    const isBeyond = number > 1 && page.articlesCount > 0;
    return html`<div class="empty-feed-message">${isBeyond ? html`<p>This page is past the last article.</p><p><a class="btn btn-outline-secondary" href="${pageAddress(1)}">Back to the first page</a></p>` : empty}</div>`;
  }
  return html`<div class="article-list">${page.articles.map((article) => preview(visit, article))}</div>${pagination(page.articlesCount, number, pageAddress)}`;
}

// The first-level headings are what RealWorld's suites look for; aria-level gives their true rank.
function preview(visit: Visit, article: ArticlePreview): SafeHtml {
  const { slug, title, description, author, createdAt, tagList: tags } = article;
  const to = address.article(slug);
  return html`<article class="article-preview" id="${anchorOf(slug)}"><div class="article-meta"><a class="avatar-link" href="${address.profile(author.username)}" tabindex="-1" aria-hidden="true">${avatar(author, 36)}</a>
<div class="info"><a class="author" href="${address.profile(author.username)}">${author.username}</a>${time(createdAt)}</div>${heartButton(visit, article)}</div>
<a class="preview-link" href="${to}"><h1 aria-level="2">${title}</h1><p>${description}</p></a>${tagList(tags.slice(0, previewTagsMax), "Tags")}</article>`;
}

/** First, last, current and its neighbours; gaps where pages are left out. */
function pagination(
  articlesCount: number,
  current: number,
  pageAddress: (number: number) => string,
): SafeHtml | undefined {
  const last = Math.min(Math.ceil(articlesCount / articlesPerPage), pageMax);
  if (last <= 1) return undefined;
  const shown = [1, current - 2, current - 1, current, current + 1, current + 2, last].filter(
    (page) => page >= 1 && page <= last,
  );
  const pages = [...new Set(shown)].sort((a, b) => a - b);
  const items = pages.flatMap((page, index) => {
    const isGap = index > 0 && page - (pages[index - 1] as number) > 1;
    const isCurrent = page === current;
    return [
      isGap && html`<li class="page-gap" aria-hidden="true">…</li>`,
      html`<li class="page-item${isCurrent && " active"}"><a class="page-link" href="${pageAddress(page)}"${attributes({ "aria-current": isCurrent && "page", "aria-label": `Page ${page}` })}>${page}</a></li>`,
    ];
  });
  return html`<nav aria-label="Pages"><ul class="pagination">${items}</ul></nav>`;
}
