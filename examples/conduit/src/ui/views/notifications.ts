/** What others did that concerns the viewer, newest first. */
import type { Notification, NotificationPage } from "../../domain/model.ts";
import { address } from "../address.ts";
import { html, type SafeHtml } from "../html.ts";
import type { SignedInVisit } from "../visit.ts";
import { layout } from "./layout.ts";
import { avatar, time } from "./parts.ts";

export function notificationsPage(
  visit: SignedInVisit,
  { page, isNewest }: { readonly page: NotificationPage; readonly isNewest: boolean },
): SafeHtml {
  const { notifications, readUpTo } = page;
  const last = notifications.at(-1);
  const body = html`<div class="container page narrow"><h1>Notifications</h1>
<section class="notifications" data-region="notifications" aria-label="Notifications">${
    notifications.length === 0
      ? html`<div class="empty-feed-message"><p>Nothing has happened yet.</p><p class="muted">When somebody follows you, likes or comments on your articles, it shows here.</p></div>`
      : html`<ol class="notification-list">${notifications.map((notification) => item(visit, notification, readUpTo))}</ol>`
  }${last !== undefined && last.id > 1 && html`<p><a class="btn btn-outline-secondary" href="${address.notifications(last.id)}">Older</a></p>`}${
    !isNewest && html`<p><a href="${address.notifications()}">Back to the newest</a></p>`
  }</section></div>`;
  return layout(visit, { title: "Notifications", className: "notifications-page", body });
}

function item(visit: SignedInVisit, notification: Notification, readUpTo: number): SafeHtml {
  const { id, actor, text, createdAt } = notification;
  const isNew = id > readUpTo;
  return html`<li class="notification${isNew && " is-new"}" id="notification-${id}"><a class="notification-link" href="${targetOf(visit, notification)}">${avatar(actor ?? visit.viewer, 36)}<span class="notification-text">${isNew && html`<span class="visually-hidden">New: </span>`}${text}</span></a>${time(createdAt)}</li>`;
}

/** Where it leads. */
function targetOf(visit: SignedInVisit, { kind, actor, details }: Notification): string {
  const article = address.article(String(details["slug"] ?? ""));
  if (kind === "favorite") return article;
  if (kind === "comment") return `${article}#comment-${details["comment"]}`;
  if (kind === "tip") return address.tips;
  if (kind === "video") return address.uploads();
  return address.profile(actor?.username ?? visit.viewer.username);
}
