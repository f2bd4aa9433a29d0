/**
 * Which part of an object a request gets: conditional requests and one byte range (RFC 9110, sections 13 and 14).
 *
 * Several ranges in one request are answered by the whole, which the RFC allows (14.2) and which spares multipart answers.
 */
import type { ByteRange, ObjectInfo } from "./object-store.ts";

/** What to answer. */
export type RangeAnswer =
  | { readonly status: 200 }
  | { readonly status: 206; readonly range: ByteRange }
  | { readonly status: 304 | 412 | 416 };

/** The headers that decide; each as it came. */
export interface RangeRequest {
  /** Only of GET is a part given (14.2). */
  readonly method: string;
  readonly range?: string | undefined;
  readonly ifRange?: string | undefined;
  readonly ifMatch?: string | undefined;
  readonly ifNoneMatch?: string | undefined;
  readonly ifModifiedSince?: string | undefined;
}

/** Decides in the order of RFC 9110, 13.2.2. */
export function answerRange(
  request: RangeRequest,
  object: Pick<ObjectInfo, "sizeBytes" | "etag" | "modifiedAt">,
): RangeAnswer {
  const { method, range, ifRange, ifMatch, ifNoneMatch, ifModifiedSince } = request;
  if (ifMatch !== undefined && !listsTag(ifMatch, object.etag, false)) return { status: 412 };
  if (ifNoneMatch !== undefined) {
    if (listsTag(ifNoneMatch, object.etag, true)) return { status: 304 };
  } else if (ifModifiedSince !== undefined && secondsOf(object.modifiedAt) <= secondsOf(ifModifiedSince)) {
    return { status: 304 };
  }
  if (range === undefined || method !== "GET") return { status: 200 };
  if (ifRange !== undefined && !isSameVersion(ifRange, object)) return { status: 200 };
  const part = partOf(range, object.sizeBytes);
  if (part === undefined) return { status: 200 };
  return part === "unsatisfiable" ? { status: 416 } : { status: 206, range: part };
}

/** Whether a list of entity tags names this one; `*` names any. Weak tags count only where `isWeak`. */
function listsTag(list: string, etag: string, isWeak: boolean): boolean {
  if (list.trim() === "*") return true;
  const tags = list.match(/(?:W\/)?"[^"]*"/g) ?? [];
  return tags.some((tag) => tag === etag || (isWeak && tag === `W/${etag}`));
}

/** If-Range: a strong tag, or the exact date (13.1.5). */
function isSameVersion(ifRange: string, { etag, modifiedAt }: Pick<ObjectInfo, "etag" | "modifiedAt">): boolean {
  const text = ifRange.trim();
  if (text.startsWith('"') || text.startsWith("W/")) return text === etag;
  return secondsOf(text) === secondsOf(modifiedAt);
}

/** HTTP dates have whole seconds; NaN, which equals nothing, for what is no date. */
function secondsOf(time: Date | string): number {
  return Math.floor((typeof time === "string" ? Date.parse(time) : time.getTime()) / 1_000);
}

/** Undefined for what may be ignored: another unit, several ranges, nonsense. */
function partOf(header: string, sizeBytes: number): ByteRange | "unsatisfiable" | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/i.exec(header.trim());
  if (match === null) return undefined;
  const [, first = "", last = ""] = match;
  if (first === "") {
    if (last === "") return undefined;
    const suffix = Number(last);
    if (suffix === 0 || sizeBytes === 0) return "unsatisfiable";
    return { start: Math.max(0, sizeBytes - suffix), end: sizeBytes - 1 };
  }
  const start = Number(first);
  if (last !== "" && Number(last) < start) return undefined;
  if (start >= sizeBytes) return "unsatisfiable";
  return { start, end: last === "" ? sizeBytes - 1 : Math.min(Number(last), sizeBytes - 1) };
}
