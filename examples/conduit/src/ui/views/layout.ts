/** The frame of every page: head, skip link, navigation, main part, footer. */

import type { NotificationBox } from "../../domain/model.ts";
import { address } from "../address.ts";
import { attributes, type HtmlValue, html, type SafeHtml } from "../html.ts";
import type { Visit } from "../visit.ts";
import { avatar } from "./parts.ts";

/** What a page puts into the frame. */
export interface PageContent {
  /** Without the site's name. */
  readonly title: string;
  /** For search engines and previews of links; default the site's own. */
  readonly description?: string | undefined;
  /** Class of the outermost element, e.g. `article-page`. */
  readonly className: string;
  readonly body: HtmlValue;
  /** Slug of an article whose comments come live to signed-in visitors. */
  readonly liveArticle?: string | undefined;
  /** Whether files can be sent from this page. */
  readonly hasUploads?: boolean;
}

/** The whole document but its doctype. */
export function layout(
  visit: Visit,
  { title, description, className, body, liveArticle, hasUploads }: PageContent,
): SafeHtml {
  const summary = description ?? "Conduit: a place to share your knowledge.";
  return html`<html lang="en"><head><meta charset="utf-8"><title>${title} – Conduit</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<meta name="description" content="${summary}">
<link rel="icon" type="image/svg+xml" href="${visit.asset("icon.svg")}"><link rel="stylesheet" href="${visit.asset("app.css")}">${hasUploads && html`<link rel="stylesheet" href="${visit.asset("uploads.css")}"><script type="module" src="${visit.asset("uploads.js")}"></script>`}
<script src="${visit.asset("app.js")}" defer></script>${visit.viewer !== undefined && html`<script type="module" src="${visit.asset("live.js")}"></script>`}</head>
<body${attributes({ "data-live-topics": liveArticle !== undefined && encodeURIComponent(`article:${liveArticle.toWellFormed()}`) })}><a class="skip-link" href="#content">Skip to content</a>
<header>${navigation(visit)}</header>
<main id="content" class="${className}" tabindex="-1">${visit.isIncomplete && incompleteNotice}${body}</main>
<footer class="site-footer"><div class="container"><a class="logo-font" href="/">conduit</a>
<span>The RealWorld example app, on Rungs.</span></div></footer>
<p id="status" class="visually-hidden" role="status"></p></body></html>`;
}

/** While a shard is down: nothing looks as if it had been deleted. */
const incompleteNotice = html`<p class="notice" role="status"><strong>Some of this page is missing.</strong> Part of Conduit cannot be reached right now. Nothing is lost: it will be here again soon.</p>`;

function navigation(visit: Visit): SafeHtml {
  const { viewer } = visit;
  const path = visit.here.replace(/[?#].*$/, "");
  const link = (to: string, label: HtmlValue) =>
    html`<li class="nav-item"><a class="nav-link${path === to && " active"}" href="${to}"${attributes({ "aria-current": path === to && "page" })}>${label}</a></li>`;
  return html`<nav class="navbar" aria-label="Main"><div class="container"><a class="navbar-brand" href="/">conduit</a>
<ul class="nav navbar-nav">${link("/", "Home")}${
    viewer === undefined
      ? [link("/login", "Sign in"), link("/register", "Sign up")]
      : [
          link("/editor", html`<i class="ion-compose" aria-hidden="true"></i>New Article`),
          link("/notifications", bell(visit.notifications)),
          link("/settings", html`<i class="ion-gear-a" aria-hidden="true"></i>Settings`),
          link(
            address.profile(viewer.username),
            html`${avatar(viewer, 24)}<span class="nav-name">${viewer.username}</span>`,
          ),
        ]
  }</ul></div></nav>`;
}

/** The script keeps the count; see `assets/live.js`. */
function bell(box: NotificationBox = { newest: 0, readUpTo: 0, unreadCount: 0 }): SafeHtml {
  const { newest, readUpTo, unreadCount } = box;
  return html`<span class="bell"${attributes({ "data-newest": newest, "data-read": readUpTo })}><i class="ion-ios-bell" aria-hidden="true"></i><span class="bell-name">Notifications</span><span class="badge"${attributes({ hidden: unreadCount <= 0 })}><b>${unreadCount > 99 ? "99+" : unreadCount}</b><span class="visually-hidden"> unread</span></span></span>`;
}
