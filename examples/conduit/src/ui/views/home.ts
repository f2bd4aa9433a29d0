/** The front page: a feed and the popular tags. */
import type { ArticlePage } from "../../domain/model.ts";
import { address } from "../address.ts";
import { attributes, type HtmlValue, html, type SafeHtml } from "../html.ts";
import type { Visit } from "../visit.ts";
import { articleList } from "./article-list.ts";
import { layout } from "./layout.ts";
import { tagList } from "./parts.ts";

export interface HomeContent {
  readonly page: ArticlePage;
  readonly number: number;
  /** What the list shows: all, the people the viewer follows, or one tag. */
  readonly feed: "global" | "following" | { readonly tag: string };
  readonly tags: readonly string[];
}

export function homePage(visit: Visit, { page, number, feed, tags }: HomeContent): SafeHtml {
  const base = typeof feed === "object" ? address.tag(feed.tag) : feed === "following" ? address.following : "/";
  const pageAddress = (to: number) => (to === 1 ? base : `${base}${base.includes("?") ? "&" : "?"}page=${to}`);
  const tab = (to: string, label: HtmlValue) =>
    html`<li class="nav-item"><a class="nav-link${to === base && " active"}" href="${to}"${attributes({ "aria-current": to === base && "page" })}>${label}</a></li>`;
  const body = html`<div class="banner${visit.viewer !== undefined && " banner-small"}"><div class="container"><h1 class="logo-font">${visit.viewer === undefined ? "conduit" : `Hello, ${visit.viewer.username}`}</h1><p>A place to share your knowledge.</p></div></div>
<div class="container page home-grid"><section class="feed" aria-label="Articles"><div class="feed-toggle"><ul class="nav nav-pills outline-active">${visit.viewer !== undefined && tab(address.following, "Your Feed")}${tab("/", "Global Feed")}${typeof feed === "object" && tab(base, html`<span class="hash" aria-hidden="true">#</span>${feed.tag}`)}</ul></div>
${articleList(visit, { page, number, pageAddress, empty: emptyFeed(visit, feed) })}</section>
<aside class="sidebar" aria-labelledby="popular-tags"><h2 id="popular-tags">Popular Tags</h2>${tagList(tags, "Popular tags") ?? html`<p class="muted">No tags yet.</p>`}</aside></div>`;
  const title = typeof feed === "object" ? `#${feed.tag}` : feed === "following" ? "Your Feed" : "Home";
  return layout(visit, { title, className: "home-page", body });
}

function emptyFeed(visit: Visit, feed: HomeContent["feed"]): SafeHtml {
  if (feed === "following") {
    return html`<p>Your feed is empty.</p><p class="muted">Follow a few people, and what they write will gather here.</p><p><a class="btn btn-outline-secondary" href="/">Browse the global feed</a></p>`;
  }
  if (typeof feed === "object") {
    return html`<p>No articles about “${feed.tag}” yet.</p><p><a class="btn btn-outline-secondary" href="/">See all articles</a></p>`;
  }
  return html`<p>No articles are here... yet.</p><p class="muted">Somebody has to write the first one.</p><p><a class="btn btn-primary" href="${visit.viewer === undefined ? address.register(address.editor()) : address.editor()}">Write an article</a></p>`;
}
