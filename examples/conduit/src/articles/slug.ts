/** Readable, stable addresses of articles. */
import type { Random } from "rungs";

/** Words that are routes below `/articles/` and so can't be slugs. */
const reserved = new Set(["feed"]);
const slugMaxLength = 80;

/** The title in lower-case ASCII words joined by hyphens, at most 80 characters; "article" when nothing of it is left. */
export function slugBase(title: string): string {
  const words = title
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .slice(0, slugMaxLength)
    .replace(/^-+|-+$/g, "");
  return words === "" ? "article" : words;
}

/** Slugs to try, best first: the base itself, then the base with 8 random characters (41 bits), at most five in all. */
export function* slugCandidates(title: string, random: Random): Generator<string> {
  const base = slugBase(title);
  if (!reserved.has(base)) yield base;
  for (let attempt = 0; attempt < 4; attempt++) yield `${base}-${suffix(random)}`;
}

function suffix(random: Random): string {
  return Array.from(random.bytes(8), (byte) => (byte % 36).toString(36)).join("");
}
