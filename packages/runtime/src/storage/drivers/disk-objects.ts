/**
 * Objects in a folder, which several processes may share, over a network file system too if it has atomic renames.
 *
 * A body is written to a file under `@incoming`, flushed to the disk, and then renamed to its place: a crash leaves the old
 * version or the new one, never half of one. What crashed writers leave under `@incoming` is removed by age.
 *
 * The key `a/b` is the file `b` in the folder `a+`: so `a` and `a/b` may both exist, and no key can name `@incoming`. On a
 * file system that takes "A" for "a", so do the keys.
 */
import { createHash, randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm, rmdir, stat } from "node:fs/promises";
import { dirname, join, relative, resolve, sep } from "node:path";
import { Readable } from "node:stream";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { ConfigError } from "../../kernel/errors.ts";
import { checkListLimit, checkObjectKey, checkObjectPrefix } from "../object-key.ts";
import type { ObjectInfo, ObjectStore, PutOptions } from "../object-store.ts";
import { isFinal, storageFailed, storageLimitExceeded, storageRangeInvalid } from "../storage-errors.ts";
import { readTrailer, trailerBytes, trailerOf } from "./object-file.ts";
import { objectsBelow } from "./object-walk.ts";

/** Settings of {@link diskObjects}. */
export interface DiskObjectsOptions {
  /** Made when missing. Nothing else may write to it. */
  readonly directory: string;
  /** A file of a crashed writer is removed when it has not grown for so long; default 1 hour, at least 60,000 ms. */
  readonly leftoverAgeMs?: number;
  readonly clock?: Clock;
}

const incoming = "@incoming";
const leftoversMax = 1_000;
/** Another process may remove an empty folder while we make those below it, or rename into it. */
const renamesMax = 20;
const contentTypePattern = /^[\x20-\x7e]{1,200}$/;

/** The driver. */
export function diskObjects(options: DiskObjectsOptions): ObjectStore {
  return new DiskObjects(options);
}

class DiskObjects implements ObjectStore {
  private readonly root: string;
  private readonly leftoverAgeMs: number;
  private readonly clock: Clock;
  private sweptAt = Number.NEGATIVE_INFINITY;

  constructor({ directory, leftoverAgeMs = 3_600_000, clock = systemClock }: DiskObjectsOptions) {
    this.root = resolve(directory);
    this.leftoverAgeMs = Math.max(60_000, leftoverAgeMs);
    this.clock = clock;
  }

  async put(key: string, body: Readable, options: PutOptions): Promise<ObjectInfo> {
    const { contentType, signal } = options;
    let temporary: string | undefined;
    try {
      checkObjectKey(key);
      if (!contentTypePattern.test(contentType))
        throw new ConfigError("CONFIG_INVALID", "A content type is 1 to 200 printable ASCII characters.");
      signal?.throwIfAborted();
      await this.prepare();
      temporary = join(this.root, incoming, `${process.pid}-${randomUUID()}`);
      const info = await this.write(temporary, key, body, options);
      await this.moveIntoPlace(temporary, this.pathOf(key));
      return info;
    } catch (error) {
      body.destroy();
      if (temporary !== undefined) await rm(temporary, { force: true }).catch(() => {});
      throw this.explained(error, `"${key}" could not be stored`, signal);
    }
  }

  async open(key: string, { range, signal }: Parameters<ObjectStore["open"]>[1] = {}) {
    checkObjectKey(key);
    signal?.throwIfAborted();
    const file = await this.openFile(key);
    if (file === undefined) return undefined;
    try {
      const { sizeBytes, contentType, etag, modifiedAt } = await readTrailer(file, key);
      const start = range?.start ?? 0;
      const end = Math.min(range?.end ?? sizeBytes - 1, sizeBytes - 1);
      if (range !== undefined && (start >= sizeBytes || end < start)) throw storageRangeInvalid(key, start);
      return { key, sizeBytes, contentType, etag, modifiedAt, body: await bodyOf(file, { start, end, signal }) };
    } catch (error) {
      await file.close();
      throw this.explained(error, `"${key}" could not be read`, signal);
    }
  }

  async stat(key: string): Promise<ObjectInfo | undefined> {
    checkObjectKey(key);
    const file = await this.openFile(key);
    if (file === undefined) return undefined;
    try {
      const { sizeBytes, contentType, etag, modifiedAt } = await readTrailer(file, key);
      return { key, sizeBytes, contentType, etag, modifiedAt };
    } catch (error) {
      throw this.explained(error, `"${key}" could not be read`);
    } finally {
      await file.close();
    }
  }

  async remove(key: string): Promise<void> {
    checkObjectKey(key);
    const path = this.pathOf(key);
    try {
      await rm(path, { force: true });
      await this.removeEmptyFolders(dirname(path));
    } catch (error) {
      if (!isMissing(error)) throw this.explained(error, `"${key}" could not be removed`);
    }
  }

  async list({ prefix, after = "", limit }: Parameters<ObjectStore["list"]>[0]) {
    checkObjectPrefix(prefix);
    checkListLimit(limit);
    const found: { key: string; sizeBytes: number; modifiedAt: Date }[] = [];
    try {
      for await (const { key, path } of objectsBelow(this.root, { prefix, after })) {
        // Removed since its folder was read: not there any more.
        const file = await stat(path).catch((error: unknown) => {
          if (isMissing(error)) return undefined;
          throw error;
        });
        if (file === undefined) continue;
        found.push({ key, sizeBytes: Math.max(0, file.size - trailerBytes), modifiedAt: file.mtime });
        if (found.length === limit) break;
      }
    } catch (error) {
      throw this.explained(error, `Objects under "${prefix}" could not be listed`);
    }
    return found;
  }

  private pathOf(key: string): string {
    const parts = key.split("/");
    const name = parts.pop() as string;
    return join(this.root, ...parts.map((part) => `${part}+`), name);
  }

  private async openFile(key: string): Promise<FileHandle | undefined> {
    try {
      return await open(this.pathOf(key), "r");
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw this.explained(error, `"${key}" could not be read`);
    }
  }

  private async write(
    path: string,
    key: string,
    body: Readable,
    { contentType, sizeBytesMax, signal }: PutOptions,
  ): Promise<ObjectInfo> {
    const file = await open(path, "wx");
    try {
      const hash = createHash("sha256");
      let sizeBytes = 0;
      for await (const chunk of abortable(body, signal)) {
        sizeBytes += chunk.length;
        if (sizeBytes > sizeBytesMax) throw storageLimitExceeded(key, sizeBytesMax);
        hash.update(chunk);
        await file.appendFile(chunk);
      }
      signal?.throwIfAborted();
      const etag = `"${hash.digest("hex").slice(0, 32)}"`;
      await file.appendFile(trailerOf({ sizeBytes, contentType, etag }));
      await file.sync();
      return { key, sizeBytes, contentType, etag, modifiedAt: (await file.stat()).mtime };
    } finally {
      await file.close();
    }
  }

  /** The rename, and the folders above it, are on the disk when this resolves. */
  private async moveIntoPlace(from: string, to: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      let made: string | undefined;
      try {
        made = await mkdir(dirname(to), { recursive: true });
        await rename(from, to);
      } catch (error) {
        if (isMissing(error) && attempt < renamesMax) continue;
        throw error;
      }
      const top = made === undefined ? dirname(to) : dirname(made);
      for (let folder = dirname(to); ; folder = dirname(folder)) {
        await syncFolder(folder);
        if (folder === top || !isBelow(folder, this.root)) return;
      }
    }
  }

  private async removeEmptyFolders(from: string): Promise<void> {
    for (let folder = from; isBelow(folder, this.root); folder = dirname(folder)) {
      // Not empty, gone, or being filled by another process: then those above are not empty either.
      const isRemoved = await rmdir(folder).then(
        () => true,
        () => false,
      );
      if (!isRemoved) return;
    }
  }

  /** Makes the folder, and now and then removes what crashed writers left in it. */
  private async prepare(): Promise<void> {
    const folder = join(this.root, incoming);
    await mkdir(folder, { recursive: true });
    const now = this.clock.now();
    if (now - this.sweptAt < this.leftoverAgeMs) return;
    this.sweptAt = now;
    for (const name of (await readdir(folder)).slice(0, leftoversMax)) {
      const path = join(folder, name);
      const found = await stat(path).catch(() => undefined);
      if (found !== undefined && found.mtimeMs < now - this.leftoverAgeMs) await rm(path, { force: true });
    }
  }

  private explained(error: unknown, what: string, signal?: AbortSignal): unknown {
    if (isFinal(error, signal)) return error;
    if (signal?.aborted === true) return signal.reason;
    const code = (error as NodeJS.ErrnoException | undefined)?.code;
    // What comes from the body's own source is the caller's error, and goes back to it as it is.
    if (code === undefined || !systemCodes.has(code)) return error;
    return storageFailed(`${what} in ${this.root} (${code})`, error);
  }
}

const systemCodes = new Set(
  "EACCES EBUSY EDQUOT EEXIST EFBIG EIO EISDIR EMFILE ENAMETOOLONG ENFILE ENOENT ENOSPC ENOTDIR EPERM EROFS ESTALE".split(
    " ",
  ),
);

async function* abortable(body: Readable, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  const onAbort = () => body.destroy(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
  if (signal?.aborted === true) onAbort();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    for await (const chunk of body) yield typeof chunk === "string" ? Buffer.from(chunk) : (chunk as Buffer);
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

async function bodyOf(
  file: FileHandle,
  { start, end, signal }: { readonly start: number; readonly end: number; readonly signal: AbortSignal | undefined },
): Promise<Readable> {
  if (end >= start) return file.createReadStream({ start, end, ...(signal === undefined ? {} : { signal }) });
  await file.close();
  return Readable.from([]);
}

async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r").catch((error: unknown) => {
    // Removed again, and with it what was renamed into it.
    if (isMissing(error)) return undefined;
    throw error;
  });
  try {
    await folder?.sync();
  } finally {
    await folder?.close();
  }
}

function isBelow(path: string, root: string): boolean {
  const way = relative(root, path);
  return way !== "" && !way.startsWith("..") && !way.startsWith(sep);
}

function isMissing(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code;
  return code === "ENOENT" || code === "ENOTDIR";
}
