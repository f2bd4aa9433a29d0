/** Pictures of people: their own when it can be shown under the page's policy, else one drawn from their name. */

import { isOwnMedia } from "../domain/validation.ts";

/** Colours on which white letters have a contrast of at least 5:1 (WCAG 2.2 AA asks 4.5:1). */
const grounds = ["#17604f", "#8a3b24", "#2f5582", "#6b4a86", "#7a5410", "#3d6132", "#8b2f52", "#3f5560"] as const;

/** Where the second disc of a drawn avatar lies, so that equal colours still differ. */
const centres = ["6 6", "34 6", "6 34", "34 34", "20 2", "20 38", "2 20", "38 20"] as const;

/** The address of a user's picture: an https one or an upload's as given, else a drawn `data:` image that is the same for the same name. */
export function avatarAddress(user: { readonly username: string; readonly image: string }): string {
  return isShowable(user.image) ? user.image : drawnAvatar(user.username);
}

function isShowable(image: string): boolean {
  return isOwnMedia(image) || (/^https:\/\/[^\s]+$/i.test(image) && URL.canParse(image));
}

function drawnAvatar(username: string): string {
  const hash = hashOf(username);
  const ground = grounds[hash % grounds.length];
  const [x, y] = (centres[(hash >>> 8) % centres.length] as string).split(" ");
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 40"><rect width="40" height="40" fill="${ground}"/>` +
    `<circle cx="${x}" cy="${y}" r="17" fill="#000" opacity=".16"/><text x="20" y="26" font-family="sans-serif" ` +
    `font-size="16" fill="#fff" text-anchor="middle">${initials(username)}</text></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

/** One or two letters or digits: of the first two words, else the first letter. */
function initials(username: string): string {
  const words = username.toWellFormed().match(/[\p{L}\p{N}]+/gu) ?? [];
  const letters = words.slice(0, 2).map((word) => String.fromCodePoint(word.codePointAt(0) as number));
  return letters.length === 0 ? "?" : letters.join("").toUpperCase();
}

/** FNV-1a, 32 bits: http://www.isthe.com/chongo/tech/comp/fnv/ */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  return hash >>> 0;
}
