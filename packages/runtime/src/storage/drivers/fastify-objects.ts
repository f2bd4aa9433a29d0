/**
 * Sends a stored object as the answer of a Fastify request: whole or in part, or why not.
 *
 * What users uploaded is shown as what it was found to be and as nothing else: no guessing of types, no scripts, and a
 * download unless its kind is one that browsers show without running it.
 */
import { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import { RungsError } from "../../kernel/errors.ts";
import { answerRange, type RangeAnswer } from "../http-range.ts";
import type { ObjectInfo, ObjectStore } from "../object-store.ts";

/** How an object is sent. */
export interface SendObjectOptions {
  readonly store: Pick<ObjectStore, "open" | "stat">;
  readonly key: string;
  /** Default "no-cache". Objects whose key is never used again: "public, max-age=31536000, immutable". */
  readonly cacheControl?: string;
  /** Name of the file when it is saved; asks browsers to save and not to show. */
  readonly downloadName?: string;
  /** Whether pages of other sites may show it; default false. */
  readonly isShared?: boolean;
}

/** Kinds that browsers show without running anything. SVG is none of them: it may hold scripts. */
const shown = /^(?:image\/(?:webp|avif|jpeg|png|gif)|video\/(?:mp4|webm)|audio\/(?:mp4|mpeg|ogg|webm))$/;
/** An object may be replaced between the look at it and its opening; then both are done anew. */
const looksMax = 3;

/**
 * Answers the request, false when there is no such object and nothing was answered. Raises what the store raises.
 * The store's stream ends with the connection, and a store that breaks off breaks the connection off.
 */
export async function sendObject(
  request: FastifyRequest,
  reply: FastifyReply,
  options: SendObjectOptions,
): Promise<boolean> {
  const { store, key } = options;
  for (let look = 1; ; look++) {
    const info = await store.stat(key);
    if (info === undefined) return false;
    const answer = answerRange(rangeRequestOf(request), info);
    if ((answer.status !== 200 && answer.status !== 206) || request.method === "HEAD") {
      setHeaders(reply, { info, answer, options });
      // An empty stream leaves the length of a HEAD's answer as it was set, which is that of GET's.
      await (request.method === "HEAD" ? reply.send(Readable.from([])) : reply.send());
      return true;
    }
    const opened = await openPart(store, key, answer);
    if (opened === undefined) return false;
    if (opened !== "changed" && opened.etag === info.etag) {
      if (request.raw.destroyed || reply.raw.destroyed) opened.body.destroy();
      // Fastify destroys a stream whose client has gone; this also holds before the first byte was sent.
      reply.raw.once("close", () => opened.body.destroy());
      setHeaders(reply, { info: opened, answer, options });
      await reply.send(opened.body);
      return true;
    }
    if (opened !== "changed") opened.body.destroy();
    if (look >= looksMax) throw changing(key);
  }
}

async function openPart(store: SendObjectOptions["store"], key: string, answer: RangeAnswer) {
  try {
    return await store.open(key, answer.status === 206 ? { range: answer.range } : {});
  } catch (error) {
    if (error instanceof RungsError && error.code === "STORAGE_RANGE_INVALID") return "changed";
    throw error;
  }
}

function setHeaders(
  reply: FastifyReply,
  {
    info,
    answer,
    options,
  }: { readonly info: ObjectInfo; readonly answer: RangeAnswer; readonly options: SendObjectOptions },
): void {
  const { cacheControl = "no-cache", downloadName, isShared = false } = options;
  const { status } = answer;
  reply.code(status).headers({
    "accept-ranges": "bytes",
    etag: info.etag,
    "last-modified": info.modifiedAt.toUTCString(),
    "cache-control": status === 412 || status === 416 ? "no-store" : cacheControl,
    "x-content-type-options": "nosniff",
    "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "cross-origin-resource-policy": isShared ? "cross-origin" : "same-origin",
  });
  if (status === 416) reply.header("content-range", `bytes */${info.sizeBytes}`);
  if (status !== 200 && status !== 206) return;
  const type = shown.test(info.contentType) ? info.contentType : "application/octet-stream";
  reply.header("content-type", type);
  if (downloadName !== undefined || type !== info.contentType)
    reply.header("content-disposition", dispositionOf(downloadName));
  if (status === 206) {
    const { start, end } = answer.range;
    reply.headers({ "content-range": `bytes ${start}-${end}/${info.sizeBytes}`, "content-length": end - start + 1 });
  } else reply.header("content-length", info.sizeBytes);
}

/** RFC 6266, with the plain name for old clients and the exact one beside it. */
function dispositionOf(name: string | undefined): string {
  if (name === undefined) return "attachment";
  const plain = name.replace(/[^A-Za-z0-9._ -]/g, "_");
  const exact = encodeURIComponent(name.toWellFormed()).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${plain}"; filename*=UTF-8''${exact}`;
}

function rangeRequestOf({ method, headers }: FastifyRequest) {
  return {
    method,
    range: headers.range,
    ifRange: textOf(headers["if-range"]),
    ifMatch: headers["if-match"],
    ifNoneMatch: headers["if-none-match"],
    ifModifiedSince: headers["if-modified-since"],
  };
}

function textOf(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}

function changing(key: string): Error {
  return new Error(`"${key}" was replaced ${looksMax} times while it was being opened.`);
}
