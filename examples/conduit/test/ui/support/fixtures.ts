/** Articles and people as the domain gives them, and every page that shows them. */
import type { Account, Article, ArticlePage, Comment, Profile, Upload } from "../../../src/domain/model.ts";
import type { SafeHtml } from "../../../src/ui/html.ts";
import { articlePage } from "../../../src/ui/views/article.ts";
import { editorPage, loginPage, registerPage, settingsPage } from "../../../src/ui/views/forms.ts";
import { homePage } from "../../../src/ui/views/home.ts";
import { notificationsPage } from "../../../src/ui/views/notifications.ts";
import { problemPage } from "../../../src/ui/views/problem.ts";
import { profilePage } from "../../../src/ui/views/profile.ts";
import { uploadsPage } from "../../../src/ui/views/uploads.ts";
import type { SignedInVisit, Visit } from "../../../src/ui/visit.ts";

/** The scripts of {@link visitBy}'s pages. */
export const scriptAddresses = ["/assets/app.js", "/assets/live.js", "/assets/uploads.js"];

const at = "2026-03-01T10:00:00.000Z";

export function accountWith(text: string): Account {
  return { id: "0190-1", username: text, email: text, bio: text, image: text };
}

export function profileWith(text: string): Profile {
  return { username: text, bio: text, image: text, following: false };
}

export function articleWith(text: string, slug = text): Article {
  return {
    slug,
    title: text,
    description: text,
    body: text,
    tagList: [text, `${text} again`],
    createdAt: at,
    updatedAt: at,
    favorited: true,
    favoritesCount: 3,
    author: profileWith(`${text} author`),
  };
}

export function pageWith(text: string, count = 10): ArticlePage {
  return {
    articles: Array.from({ length: count }, (_, index) => articleWith(text, `${text}-${index}`)),
    articlesCount: count * 20,
  };
}

export function commentWith(text: string, author: Profile): Comment {
  return { id: 1, createdAt: at, updatedAt: at, body: text, author };
}

export function uploadWith(text: string, fields: Partial<Upload>): Upload {
  return {
    id: `0190-${fields.state}`,
    purpose: "image",
    name: text,
    isPrivate: false,
    state: "received",
    progress: 0,
    message: null,
    url: "/api/uploads/0190",
    media: null,
    poster: null,
    markdown: text,
    renditions: [],
    createdAt: at,
    ...fields,
  };
}

export function visitBy(viewer: Account): SignedInVisit;
export function visitBy(viewer?: Account): Visit;
export function visitBy(viewer?: Account): Visit {
  return { viewer, csrf: viewer === undefined ? "" : "csrf-token", here: "/", asset: (name) => `/assets/${name}` };
}

/** Every page with `text` in every field. */
export function everyPage(text: string): Readonly<Record<string, SafeHtml>> {
  const viewer = accountWith(text);
  const signedIn = visitBy(viewer);
  const signedOut = visitBy();
  const own = { ...articleWith(text), author: profileWith(text) };
  const comments = [
    commentWith(text, profileWith(text)),
    { ...commentWith(text, profileWith(`${text} other`)), id: 2 },
  ];
  const errors = { [text]: [text], title: [text], username: [text] };
  const home = { page: pageWith(text), number: 3, tags: [text] };
  const profile = { profile: profileWith(text), page: pageWith(text), number: 1 };
  const none: ArticlePage = { articles: [], articlesCount: 0 };
  return {
    "home, signed out": homePage(signedOut, { ...home, feed: "global" }),
    "home, own feed": homePage(signedIn, { ...home, feed: "following" }),
    "home, one tag": homePage(signedIn, { ...home, feed: { tag: text } }),
    "home, empty tag": homePage(signedIn, { ...home, page: none, feed: { tag: text } }),
    "home, empty": homePage(signedOut, { ...home, page: none, feed: "global", tags: [] }),
    "home, incomplete": homePage({ ...signedIn, isIncomplete: true }, { ...home, feed: "global" }),
    "home, empty feed": homePage(signedIn, { ...home, page: none, feed: "following" }),
    "article, signed out": articlePage(signedOut, { article: articleWith(text), comments, showsAllComments: false }),
    "article, of another": articlePage(signedIn, { article: articleWith(text), comments, showsAllComments: true }),
    "article, own": articlePage(signedIn, { article: own, comments, showsAllComments: false }),
    "article, refused comment": articlePage(signedIn, {
      article: own,
      comments,
      showsAllComments: false,
      refused: { body: text, errors },
    }),
    "profile, own": profilePage(signedIn, { ...profile, shows: "articles" }),
    "profile, of another": profilePage(visitBy(accountWith("viewer")), { ...profile, shows: "favorites" }),
    "profile, empty": profilePage(signedOut, { ...profile, page: none, shows: "favorites" }),
    "sign in": loginPage(signedOut, `/?next=${encodeURIComponent(text.toWellFormed())}`, {
      values: { email: text },
      errors,
    }),
    "sign up": registerPage(signedOut, "/", { values: { username: text, email: text }, errors }),
    settings: settingsPage(signedIn, { values: viewer, errors }),
    editor: editorPage(signedIn, { values: articleWith(text), slug: text, errors }),
    "editor, new": editorPage(signedIn, { values: { title: "", description: "", body: "", tagList: [] } }),
    "editor, preview": editorPage(signedIn, { values: articleWith(text), isPreview: true }),
    notifications: notificationsPage(signedIn, {
      page: {
        notifications: [
          {
            id: 2,
            kind: "comment",
            actor: profileWith(text),
            details: { slug: text, comment: text },
            text,
            createdAt: at,
          },
          { id: 1, kind: "video", actor: null, details: { uploadId: text, state: text }, text, createdAt: at },
        ],
        newest: 2,
        readUpTo: 1,
        unreadCount: 1,
      },
      isNewest: false,
    }),
    uploads: uploadsPage(signedIn, {
      uploads: [
        uploadWith(text, { state: "received" }),
        uploadWith(text, { state: "processing", progress: 40 }),
        uploadWith(text, { state: "waiting", message: text }),
        uploadWith(text, { state: "failed", message: text }),
        uploadWith(text, {
          state: "ready",
          purpose: "video",
          media: "/media/a/b/video.mp4",
          poster: "/media/a/b/poster.webp",
        }),
      ],
      errors,
      isNewest: true,
    }),
    problem: problemPage(signedIn, { status: 500, errors, isFault: true }, text),
    "not found": problemPage(signedOut, { status: 404, errors: { page: ["not found"] }, isFault: false }, text),
  };
}
