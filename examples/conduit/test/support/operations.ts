/** The operations of the RealWorld API and those beside it, for tests that try each of them. */

/** One operation; `:slug`, `:username` and `:id` in the path are to be filled in. */
export interface Operation {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  readonly path: string;
  readonly auth: "none" | "optional" | "required";
  /** Name of the object its body wraps, and that object's fields. */
  readonly body?: { readonly name: string; readonly fields: readonly string[] };
  readonly query?: readonly string[];
  /** Conduit's own, beside RealWorld's: its published contract does not know it. */
  readonly isOwn?: true;
}

const page = ["limit", "offset"];

export const operations: readonly Operation[] = [
  { method: "POST", path: "/users/login", auth: "none", body: { name: "user", fields: ["email", "password"] } },
  { method: "POST", path: "/users", auth: "none", body: { name: "user", fields: ["username", "email", "password"] } },
  { method: "GET", path: "/user", auth: "required" },
  { method: "PUT", path: "/user", auth: "required", body: { name: "user", fields: ["bio", "image"] } },
  { method: "GET", path: "/profiles/:username", auth: "optional" },
  { method: "POST", path: "/profiles/:username/follow", auth: "required" },
  { method: "DELETE", path: "/profiles/:username/follow", auth: "required" },
  { method: "GET", path: "/articles/feed", auth: "required", query: page },
  { method: "GET", path: "/articles", auth: "optional", query: ["tag", "author", "favorited", ...page] },
  {
    method: "POST",
    path: "/articles",
    auth: "required",
    body: { name: "article", fields: ["title", "description", "body", "tagList"] },
  },
  { method: "GET", path: "/articles/:slug", auth: "none" },
  {
    method: "PUT",
    path: "/articles/:slug",
    auth: "required",
    body: { name: "article", fields: ["title", "description", "body", "tagList"] },
  },
  { method: "DELETE", path: "/articles/:slug", auth: "required" },
  { method: "GET", path: "/articles/:slug/comments", auth: "optional" },
  { method: "POST", path: "/articles/:slug/comments", auth: "required", body: { name: "comment", fields: ["body"] } },
  { method: "DELETE", path: "/articles/:slug/comments/:id", auth: "required" },
  { method: "POST", path: "/articles/:slug/favorite", auth: "required" },
  { method: "DELETE", path: "/articles/:slug/favorite", auth: "required" },
  { method: "GET", path: "/tags", auth: "none" },
  {
    method: "POST",
    path: "/profiles/:username/tips",
    auth: "required",
    body: { name: "tip", fields: ["amount", "currency", "message"] },
    isOwn: true,
  },
  { method: "GET", path: "/tips", auth: "required", query: ["limit", "before"], isOwn: true },
  { method: "GET", path: "/tips/:id", auth: "required", isOwn: true },
  { method: "GET", path: "/tips/received", auth: "required", query: ["limit", "before"], isOwn: true },
  { method: "GET", path: "/balance", auth: "required", isOwn: true },
  { method: "GET", path: "/notifications", auth: "required", query: ["limit", "before"], isOwn: true },
];
