/** Small pieces that several pages share. */
import type { Article, ArticlePreview, Profile } from "../../domain/model.ts";
import type { ProblemErrors } from "../../domain/problem.ts";
import { address } from "../address.ts";
import { avatarAddress } from "../avatar.ts";
import { attributes, type HtmlValue, html, type SafeHtml } from "../html.ts";
import type { Visit } from "../visit.ts";

/** A user's picture of `pixels` by `pixels`. It says nothing that the name beside it does not. */
export function avatar(user: { readonly username: string; readonly image: string }, pixels: number): SafeHtml {
  return html`<img class="user-img" src="${avatarAddress(user)}" alt="" width="${pixels}" height="${pixels}" decoding="async" referrerpolicy="no-referrer">`;
}

const days = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "long", year: "numeric", timeZone: "UTC" });

/** A day for people, the exact time for machines. */
export function time(iso: string): SafeHtml {
  return html`<time class="date" datetime="${iso}">${days.format(new Date(iso))}</time>`;
}

/** The hidden fields of every form: its token, and where to go when it is done. */
export function hidden(visit: Visit, next?: string): SafeHtml {
  return html`<input type="hidden" name="_csrf" value="${visit.csrf}">${next !== undefined && html`<input type="hidden" name="next" value="${next}">`}`;
}

/** A button that is a form of its own. */
export interface ActionForm {
  readonly action: string;
  readonly label: HtmlValue;
  readonly className: string;
  /** Path to go to when it is done. */
  readonly next: string;
  /** The parts of the page that the script replaces when it is done. */
  readonly live?: string | undefined;
  /** What the script tells assistive technology when it is done. */
  readonly done?: string | undefined;
  /** What the script offers to undo for a few seconds before it does it. */
  readonly undo?: string | undefined;
  /** Name of a button whose content is a picture. */
  readonly name?: string | undefined;
  readonly isPressed?: boolean | undefined;
}

export function actionForm(visit: Visit, form: ActionForm): SafeHtml {
  const pressed = form.isPressed === undefined ? undefined : String(form.isPressed);
  return html`<form method="post" action="${form.action}"${attributes({ "data-live": form.live, "data-done": form.done, "data-undo": form.undo })}>${hidden(visit, form.next)}<button class="${form.className}" type="submit"${attributes({ "aria-label": form.name, "aria-pressed": pressed })}>${form.label}</button></form>`;
}

/** Follow or unfollow. */
export function followButton(visit: Visit, profile: Profile): SafeHtml {
  const { username, following } = profile;
  return actionForm(visit, {
    action: `${address.profile(username)}/${following ? "unfollow" : "follow"}`,
    next: visit.here,
    className: `btn btn-sm action-btn ${following ? "btn-secondary" : "btn-outline-secondary"}`,
    live: "actions",
    done: following ? `You no longer follow ${username}.` : `You follow ${username}.`,
    label: html`<i class="${following ? "ion-checkmark" : "ion-plus-round"}" aria-hidden="true"></i>${following ? "Unfollow" : "Follow"} ${username}`,
  });
}

/** Favourite or unfavourite, spelt out. */
export function favoriteButton(visit: Visit, article: Article): SafeHtml {
  const { favorited, favoritesCount } = article;
  return actionForm(visit, {
    ...favoriteForm(visit, article),
    live: "actions",
    label: html`<i class="ion-heart" aria-hidden="true"></i>${favorited ? "Unfavorite" : "Favorite"} Article <span class="counter">(${favoritesCount})</span>`,
  });
}

/** Favourite or unfavourite in a list: a heart and a count. */
export function heartButton(visit: Visit, article: ArticlePreview): SafeHtml {
  const { favorited, favoritesCount, slug, title } = article;
  return html`<div data-region="heart-${slug}">${actionForm(visit, {
    ...favoriteForm(visit, article),
    next: `${visit.here}#${anchorOf(slug)}`,
    live: `heart-${slug}`,
    name: `Favorite ${title} (${favoritesCount})`,
    isPressed: favorited,
    label: html`<i class="ion-heart" aria-hidden="true"></i>${favoritesCount}`,
  })}</div>`;
}

function favoriteForm(visit: Visit, { slug, favorited }: ArticlePreview) {
  return {
    action: `${address.article(slug)}/${favorited ? "unfavorite" : "favorite"}`,
    next: visit.here,
    className: `btn btn-sm ${favorited ? "btn-primary" : "btn-outline-primary"}`,
    done: favorited ? "Removed from your favorites." : "Added to your favorites.",
  };
}

/** Where an article's preview stands on its page. */
export function anchorOf(slug: string): string {
  return `a-${encodeURIComponent(slug)}`;
}

/** What was wrong, as a list that takes the focus; nothing when nothing was. `fields` names the inputs with an id of `field-NAME`. */
export function errorList(errors: ProblemErrors | undefined, fields: readonly string[] = []): SafeHtml | undefined {
  if (errors === undefined) return undefined;
  const items = Object.entries(errors).flatMap(([field, messages]) => messages.map((message) => ({ field, message })));
  return html`<div class="error-summary" role="alert" tabindex="-1" autofocus><ul class="error-messages">${items.map(
    ({ field, message }) => {
      const text = `${wordOf(field)} ${message}`;
      return html`<li>${fields.includes(field) ? html`<a href="#field-${field}">${text}</a>` : text}</li>`;
    },
  )}</ul></div>`;
}

function wordOf(field: string): string {
  return field === "tagList" ? "tags" : field;
}

/** Tags as links to the articles that carry them. */
export function tagList(tags: readonly string[], label: string): SafeHtml | undefined {
  if (tags.length === 0) return undefined;
  return html`<ul class="tag-list" aria-label="${label}">${tags.map((tag) => html`<li><a class="tag-default tag-pill" href="${address.tag(tag)}">${tag}</a></li>`)}</ul>`;
}
