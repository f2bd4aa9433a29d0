/**
 * Static files under content-hashed names: `app.css` is served as `/assets/app.3f2a9c1b04.css`, forever the same.
 *
 * Files are read once at start and kept in memory with their compressed forms, so serving touches no disk and no path of
 * a request ever reaches the file system. Compression runs after the start; until it is done files go out as they are.
 */
import { createHash } from "node:crypto";
import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { brotliCompress, constants, gzip } from "node:zlib";
import { ConfigError } from "../kernel/errors.ts";

/** An answer for any HTTP server. */
export interface AssetAnswer {
  readonly status: 200 | 206 | 304 | 404 | 416;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | undefined;
}

export interface Assets {
  /** Address of a file by its own name, e.g. `/assets/app.3f2a9c1b04.css`. Raises `CONFIG_INVALID` for an unknown one. */
  url(name: string): string;
  /** Prefix of all addresses. */
  readonly prefix: string;
  /** Answers a path below the prefix, as it stands in the request, without query. */
  answer(path: string, headers: Readonly<Record<string, string | string[] | undefined>>): AssetAnswer;
}

export interface AssetsOptions {
  /** Folders as file URLs; later ones win when names clash. */
  readonly folders: readonly (string | URL)[];
  /** Default `/assets/`. */
  readonly prefix?: string;
  /** Origin of a CDN before the addresses; default none. */
  readonly cdnOrigin?: string;
  /** Bytes of all files together; default 64 MiB. */
  readonly bytesMax?: number;
}

type Encoding = "br" | "gzip" | "identity";

interface Asset {
  readonly name: string;
  readonly path: string;
  readonly type: string;
  readonly bodies: Map<Encoding, Buffer>;
  readonly hash: string;
}

const types: Readonly<Record<string, string>> = {
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  json: "application/json; charset=utf-8",
  svg: "image/svg+xml; charset=utf-8",
  txt: "text/plain; charset=utf-8",
  html: "text/html; charset=utf-8",
  webmanifest: "application/manifest+json; charset=utf-8",
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  webp: "image/webp",
  avif: "image/avif",
  ico: "image/x-icon",
  woff2: "font/woff2",
  mp4: "video/mp4",
};
const compressible = /^text\/|json|svg|manifest/;
const immutable = "public, max-age=31536000, immutable";
const brotli = promisify(brotliCompress);
const gzipped = promisify(gzip);

/** Reads the folders. Raises `CONFIG_INVALID` when they hold too much. */
export async function openAssets(options: AssetsOptions): Promise<Assets> {
  const { prefix = "/assets/", cdnOrigin = "", bytesMax = 64 * 1024 * 1024 } = options;
  const files = await readFolders(options.folders, bytesMax);
  const byName = new Map<string, Asset>();
  const byPath = new Map<string, Asset>();
  // Style sheets come last, because their own hash depends on the names they refer to.
  for (const [name, content] of [...files].sort(
    ([a], [b]) => Number(a.endsWith(".css")) - Number(b.endsWith(".css")),
  )) {
    const asset = makeAsset(name, name.endsWith(".css") ? withHashedUrls(content, byName, prefix) : content, prefix);
    byName.set(name, asset);
    byPath.set(asset.path, asset);
  }
  void compressAll([...byName.values()]);
  return {
    prefix,
    url(name) {
      const asset = byName.get(name);
      if (asset !== undefined) return cdnOrigin + asset.path;
      throw new ConfigError(
        "CONFIG_INVALID",
        `There is no asset "${name}". Known: ${[...byName.keys()].slice(0, 20).join(", ") || "none"}.`,
      );
    },
    answer: (path, headers) => answerFor(byPath.get(path), headers),
  };
}

async function readFolders(folders: readonly (string | URL)[], bytesMax: number): Promise<Map<string, Buffer>> {
  const files = new Map<string, Buffer>();
  let bytes = 0;
  for (const folder of folders) {
    const root = fileURLToPath(folder);
    for (const entry of (await readdir(root, { recursive: true, withFileTypes: true })).filter((item) =>
      item.isFile(),
    )) {
      const path = join(entry.parentPath, entry.name);
      bytes += (await stat(path)).size;
      if (bytes > bytesMax) {
        throw new ConfigError(
          "CONFIG_INVALID",
          `The asset folders hold over ${bytesMax} bytes, the limit. Large media belong in uploads, not in assets.`,
        );
      }
      files.set(relative(root, path).split(sep).join("/"), await readFile(path));
    }
  }
  return files;
}

function makeAsset(name: string, content: Buffer, prefix: string): Asset {
  const hash = createHash("sha256").update(content).digest("hex").slice(0, 10);
  const at = name.lastIndexOf(".");
  const extension = at < 0 ? "" : name.slice(at + 1).toLowerCase();
  const hashed = at < 0 ? `${name}.${hash}` : `${name.slice(0, at)}.${hash}${name.slice(at)}`;
  const type = types[extension] ?? "application/octet-stream";
  return { name, path: prefix + hashed, type, hash, bodies: new Map([["identity", content]]) };
}

/** Points `url(x)` in a style sheet at the hashed name of a known asset. */
function withHashedUrls(content: Buffer, known: ReadonlyMap<string, Asset>, prefix: string): Buffer {
  const text = content
    .toString("utf8")
    .replace(/url\((["']?)(?!data:|https?:|\/)([^"')]+)\1\)/g, (whole, quote: string, name: string) => {
      const asset = known.get(name.replace(/^\.\//, ""));
      return asset === undefined ? whole : `url(${quote}${asset.path.slice(prefix.length)}${quote})`;
    });
  return Buffer.from(text);
}

/** One file after the other, so that a start is not slowed by it. */
async function compressAll(assets: readonly Asset[]): Promise<void> {
  for (const asset of assets) {
    const content = asset.bodies.get("identity") as Buffer;
    if (!compressible.test(asset.type) || content.length < 256) continue;
    const [small, smallest] = await Promise.all([
      gzipped(content, { level: 9 }),
      brotli(content, {
        params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: content.length },
      }),
    ]);
    if (small.length < content.length) asset.bodies.set("gzip", small);
    if (smallest.length < content.length) asset.bodies.set("br", smallest);
  }
}

function answerFor(
  asset: Asset | undefined,
  headers: Readonly<Record<string, string | string[] | undefined>>,
): AssetAnswer {
  if (asset === undefined) return { status: 404, headers: { "cache-control": "no-store" }, body: undefined };
  const range = text(headers["range"]);
  const encoding = range === undefined ? bestEncoding(asset, text(headers["accept-encoding"])) : "identity";
  const body = asset.bodies.get(encoding) as Buffer;
  const etag = `"${asset.hash}${encoding === "identity" ? "" : `-${encoding}`}"`;
  const common = {
    "cache-control": immutable,
    etag,
    vary: "accept-encoding",
    "cross-origin-resource-policy": "cross-origin",
    ...(encoding === "identity" ? { "accept-ranges": "bytes" } : { "content-encoding": encoding }),
  };
  if (
    text(headers["if-none-match"])
      ?.split(/\s*,\s*/)
      .includes(etag)
  )
    return { status: 304, headers: common, body: undefined };
  const typed = { ...common, "content-type": asset.type };
  if (range === undefined) return { status: 200, headers: typed, body };
  const part = rangeOf(range, body.length);
  if (part === undefined) return { status: 200, headers: typed, body };
  if (part === "unsatisfiable")
    return { status: 416, headers: { ...common, "content-range": `bytes */${body.length}` }, body: undefined };
  const [first, last] = part;
  return {
    status: 206,
    headers: { ...typed, "content-range": `bytes ${first}-${last}/${body.length}` },
    body: body.subarray(first, last + 1),
  };
}

/** The smallest body the client accepts (RFC 9110, 12.5.3): brotli, gzip, or as it is. */
function bestEncoding(asset: Asset, accept: string | undefined): Encoding {
  if (accept === undefined) return "identity";
  const qualities = new Map<string, number>();
  for (const part of accept.split(",")) {
    const [name = "", ...parameters] = part
      .trim()
      .toLowerCase()
      .split(/\s*;\s*/);
    const quality = parameters.find((parameter) => parameter.startsWith("q="));
    qualities.set(name, quality === undefined ? 1 : Number(quality.slice(2)) || 0);
  }
  const accepts = (name: string) => (qualities.get(name) ?? qualities.get("*") ?? 0) > 0;
  if (asset.bodies.has("br") && accepts("br")) return "br";
  return asset.bodies.has("gzip") && accepts("gzip") ? "gzip" : "identity";
}

/** One byte range (RFC 9110, 14.1.2); undefined for what may be ignored: other units and several ranges. */
function rangeOf(header: string, length: number): readonly [first: number, last: number] | "unsatisfiable" | undefined {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header.trim());
  if (match === null || (match[1] === "" && match[2] === "")) return undefined;
  if (match[1] === "") {
    const suffix = Number(match[2]);
    return suffix === 0 || length === 0 ? "unsatisfiable" : [Math.max(0, length - suffix), length - 1];
  }
  const first = Number(match[1]);
  const last = match[2] === "" ? length - 1 : Math.min(Number(match[2]), length - 1);
  if (match[2] !== "" && Number(match[2]) < first) return undefined;
  return first >= length ? "unsatisfiable" : [first, last];
}

function text(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value[0] : value;
}
