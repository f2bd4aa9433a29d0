/** Addresses of the pages, and the check of addresses that come from outside. */

/** Text as one segment of a path or one value of a query. */
function segment(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

/** Where each page lives. */
export const address = {
  home: "/",
  following: "/?feed=following",
  tag: (tag: string) => `/?tag=${segment(tag)}`,
  article: (slug: string) => `/article/${segment(slug)}`,
  editor: (slug?: string) => (slug === undefined ? "/editor" : `/editor/${segment(slug)}`),
  notifications: (before?: number) => (before === undefined ? "/notifications" : `/notifications?before=${before}`),
  uploads: (before?: string) => (before === undefined ? "/uploads" : `/uploads?before=${segment(before)}`),
  profile: (username: string) => `/profile/${segment(username)}`,
  favorites: (username: string) => `/profile/${segment(username)}/favorites`,
  tips: "/tips",
  tip: (id: string) => `/tips/${segment(id)}`,
  tipForm: (username: string) => `/profile/${segment(username)}/tip`,
  giveTip: (username: string) => `/profile/${segment(username)}/tips`,
  login: (next?: string) => (next === undefined || next === "/" ? "/login" : `/login?next=${segment(next)}`),
  register: (next?: string) => (next === undefined || next === "/" ? "/register" : `/register?next=${segment(next)}`),
} as const;

/**
 * A path of this site from an untrusted text, or undefined: no other host by any spelling (`//host`, `/\host`,
 * `/.//host`, `https:`), no control characters, at most 1,000 characters.
 */
export function safePath(text: string | undefined): string | undefined {
  if (text === undefined || text.length > 1_000 || !/^\/(?![/\\])[^\\\p{Cc}]*$/u.test(text)) return undefined;
  const base = "http://site.invalid";
  if (!URL.canParse(text, base)) return undefined;
  const url = new URL(text, base);
  if (url.origin !== base || url.pathname.startsWith("//")) return undefined;
  return url.pathname + url.search + url.hash;
}
