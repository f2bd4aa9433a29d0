/** An article with its comments. */
import type { Article, Comment } from "../../domain/model.ts";
import type { ProblemErrors } from "../../domain/problem.ts";
import { address } from "../address.ts";
import { html, type SafeHtml } from "../html.ts";
import { readingMinutes, renderMarkdown } from "../markdown.ts";
import type { Visit } from "../visit.ts";
import { layout } from "./layout.ts";
import { actionForm, avatar, errorList, favoriteButton, followButton, hidden, tagList, time } from "./parts.ts";
import { tipBox } from "./tips.ts";

export interface ArticleContent {
  readonly article: Article;
  /** Newest first. */
  readonly comments: readonly Comment[];
  readonly showsAllComments: boolean;
  /** A comment that was refused: what was typed, and why. */
  readonly refused?: { readonly body: string; readonly errors: ProblemErrors } | undefined;
}

/** Comments shown before the visitor asks for all. */
const commentsFirst = 50;

export function articlePage(visit: Visit, content: ArticleContent): SafeHtml {
  const { article } = content;
  const { title, description, author, body: text, tagList: tags } = article;
  const body = html`<article><header class="banner"><div class="container column"><h1>${title}</h1>${meta(visit, article)}</div></header>
<div class="container column page"><div class="article-content"><div class="prose">${renderMarkdown(text)}</div>${tagList(tags, "Tags")}</div>
<div class="article-actions">${avatar(author, 56)}<div class="about"><a class="about-name" href="${address.profile(author.username)}">${author.username}</a>${author.bio !== "" && html`<div class="bio">${author.bio}</div>`}</div>${buttons(visit, article)}</div>${tipBox(visit, author)}</div></article>
<div class="container column page">${commentSection(visit, content)}</div>`;
  return layout(visit, { title, description, className: "article-page", body, liveArticle: article.slug });
}

function meta(visit: Visit, article: Article): SafeHtml {
  const { author, createdAt, body } = article;
  return html`<div class="article-meta"><a class="avatar-link" href="${address.profile(author.username)}" tabindex="-1" aria-hidden="true">${avatar(author, 40)}</a>
<div class="info"><a class="author" href="${address.profile(author.username)}">${author.username}</a><span class="facts">${time(createdAt)} · ${readingMinutes(body)} min read</span></div>${buttons(visit, article)}</div>`;
}

function buttons(visit: Visit, article: Article): SafeHtml {
  if (visit.viewer?.username !== article.author.username) {
    return html`<div class="buttons" data-region="actions">${followButton(visit, article.author)}${favoriteButton(visit, article)}</div>`;
  }
  return html`<div class="buttons"><a class="btn btn-sm btn-outline-secondary" href="${address.editor(article.slug)}"><i class="ion-edit" aria-hidden="true"></i>Edit Article</a>${actionForm(
    visit,
    {
      action: `${address.article(article.slug)}/delete`,
      next: "/",
      className: "btn btn-sm btn-outline-danger",
      undo: "Deleting this article",
      label: html`<i class="ion-trash-a" aria-hidden="true"></i>Delete Article`,
    },
  )}</div>`;
}

function commentSection(visit: Visit, { article, comments, showsAllComments, refused }: ArticleContent): SafeHtml {
  const shown = showsAllComments ? comments : comments.slice(0, commentsFirst);
  const count = comments.length;
  return html`<section class="comments" id="comments" data-region="comments" aria-labelledby="comments-title"><h2 id="comments-title" tabindex="-1">${count === 0 ? "Comments" : `${count} ${count === 1 ? "comment" : "comments"}`}</h2>
${commentForm(visit, article, refused)}${count === 0 && html`<p class="muted no-comments">Nobody has said anything yet.</p>`}${shown.map((comment) => commentCard(visit, article, comment))}${
  shown.length < count &&
  html`<p><a class="btn btn-outline-secondary" href="${address.article(article.slug)}?comments=all#comments">Show all ${count} comments</a></p>`
}</section>`;
}

function commentForm(visit: Visit, { slug }: Article, refused: ArticleContent["refused"]): SafeHtml {
  const { viewer } = visit;
  const here = address.article(slug);
  if (viewer === undefined) {
    return html`<p class="sign-in-hint"><a href="${address.login(`${here}#comments`)}">Sign in</a> or <a href="${address.register(`${here}#comments`)}">sign up</a> to add comments on this article.</p>`;
  }
  return html`<form class="card comment-form" method="post" action="${here}/comments" data-live="comments" data-done="Comment posted.">${hidden(visit)}${errorList(refused?.errors, ["body"])}
<div class="card-block"><label class="visually-hidden" for="field-body">Your comment</label><textarea class="form-control" id="field-body" name="body" rows="3" maxlength="16384" placeholder="Write a comment..." required>
${refused?.body}</textarea></div>
<div class="card-footer">${avatar(viewer, 28)}<button class="btn btn-sm btn-primary" type="submit">Post Comment</button></div></form>`;
}

function commentCard(visit: Visit, article: Article, { id, author, body, createdAt }: Comment): SafeHtml {
  const here = address.article(article.slug);
  return html`<article class="card" id="comment-${id}" aria-label="Comment by ${author.username}" data-removable><div class="card-block"><p class="card-text">${body}</p></div>
<div class="card-footer"><a class="comment-author" href="${address.profile(author.username)}">${avatar(author, 28)}${author.username}</a><span class="date-posted">${time(createdAt)}</span>${
    visit.viewer?.username === author.username &&
    html`<span class="mod-options">${actionForm(visit, {
      action: `${here}/comments/${id}/delete`,
      next: `${here}#comments`,
      className: "btn btn-icon",
      live: "comments",
      done: "Comment deleted.",
      undo: "Deleting your comment",
      name: "Delete comment",
      label: html`<i class="ion-trash-a" aria-hidden="true"></i>`,
    })}</span>`
  }</div></article>`;
}
