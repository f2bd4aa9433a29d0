/** A user's page: who they are, what they wrote, what they like. */
import type { ArticlePage, Profile } from "../../domain/model.ts";
import { address } from "../address.ts";
import { attributes, html, type SafeHtml } from "../html.ts";
import type { Visit } from "../visit.ts";
import { articleList } from "./article-list.ts";
import { layout } from "./layout.ts";
import { avatar, followButton } from "./parts.ts";
import { tipBox } from "./tips.ts";

export interface ProfileContent {
  readonly profile: Profile;
  readonly page: ArticlePage;
  readonly number: number;
  readonly shows: "articles" | "favorites";
}

export function profilePage(visit: Visit, { profile, page, number, shows }: ProfileContent): SafeHtml {
  const { username, bio } = profile;
  const isOwn = visit.viewer?.username === username;
  const base = shows === "articles" ? address.profile(username) : address.favorites(username);
  const tab = (to: string, label: string) =>
    html`<li class="nav-item"><a class="nav-link${to === base && " active"}" href="${to}"${attributes({ "aria-current": to === base && "page" })}>${label}</a></li>`;
  // RealWorld's suites look for the name in a fourth-level heading; aria-level gives its true rank.
  const body = html`<div class="user-info"><div class="container">${avatar(profile, 96)}<h4 aria-level="1">${username}</h4>${bio !== "" && html`<p class="bio">${bio}</p>`}
<div class="user-actions" data-region="actions">${isOwn ? html`<a class="btn btn-sm btn-outline-secondary action-btn" href="/settings"><i class="ion-gear-a" aria-hidden="true"></i>Edit Profile Settings</a>` : followButton(visit, profile)}</div>${isOwn ? html`<p><a href="${address.tips}">Your tips</a> · <a href="${address.uploads()}">Your uploads</a></p>` : tipBox(visit, profile)}</div></div>
<div class="container page narrow"><section aria-label="Articles"><div class="articles-toggle feed-toggle"><ul class="nav nav-pills outline-active">${tab(address.profile(username), isOwn ? "My Articles" : "Articles")}${tab(address.favorites(username), "Favorited Articles")}</ul></div>
${articleList(visit, { page, number, pageAddress: (to) => (to === 1 ? base : `${base}?page=${to}`), empty: emptyList(profile, shows, isOwn) })}</section></div>`;
  return layout(visit, {
    title: username,
    description: bio === "" ? undefined : bio.slice(0, 200),
    className: "profile-page",
    body,
  });
}

function emptyList({ username }: Profile, shows: ProfileContent["shows"], isOwn: boolean): SafeHtml {
  if (shows === "favorites") {
    return html`<p>${isOwn ? "You have" : `${username} has`} no favorites yet.</p><p class="muted">The heart beside an article keeps it here.</p><p><a class="btn btn-outline-secondary" href="/">Browse articles</a></p>`;
  }
  if (isOwn)
    return html`<p>You have not written anything yet.</p><p><a class="btn btn-primary" href="/editor">Write your first article</a></p>`;
  return html`<p>${username} has not written anything yet.</p>`;
}
