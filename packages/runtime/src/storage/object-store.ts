/** The storage tier's port: files by key, on a disk or in an object store that speaks S3's protocol. */
import type { Readable } from "node:stream";

/** What is known of a stored object. */
export interface ObjectInfo {
  readonly key: string;
  readonly sizeBytes: number;
  readonly contentType: string;
  /** Strong entity tag with its quotes, e.g. `"9a0364b9"`: another content has another. */
  readonly etag: string;
  readonly modifiedAt: Date;
}

/** Bytes from `start` to `end`, both counted, as HTTP counts them. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** An object being read. */
export interface OpenObject extends ObjectInfo {
  /** Destroy it when it is not read to its end. */
  readonly body: Readable;
}

export interface PutOptions {
  readonly contentType: string;
  /** More than this is refused with `STORAGE_LIMIT_EXCEEDED`, and nothing is left behind. */
  readonly sizeBytesMax: number;
  readonly signal?: AbortSignal;
}

/** Where files are kept. Keys are 1 to 512 of `a-z A-Z 0-9 . _ - /`, no part empty, "." or "..", or over 200 characters. */
export interface ObjectStore {
  /** Stores the whole body or nothing; what was under the key is replaced at once, never half. */
  put(key: string, body: Readable, options: PutOptions): Promise<ObjectInfo>;
  /** Undefined when there is none. A range beyond the end is the caller's to refuse: see `stat`. */
  open(
    key: string,
    options?: { readonly range?: ByteRange; readonly signal?: AbortSignal },
  ): Promise<OpenObject | undefined>;
  stat(key: string): Promise<ObjectInfo | undefined>;
  /** No error when there is none. */
  remove(key: string): Promise<void>;
  /** Objects whose key begins with `prefix`, by key in code point order. */
  list(options: {
    readonly prefix: string;
    /** Keys after this one; default from the first. */
    readonly after?: string;
    /** 1 to 1,000. */
    readonly limit: number;
  }): Promise<readonly Pick<ObjectInfo, "key" | "sizeBytes" | "modifiedAt">[]>;
}
