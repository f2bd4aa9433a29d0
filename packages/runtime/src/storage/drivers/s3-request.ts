/** Signed requests to an S3 server: addresses, time-outs, bounded retries, and what a refusal means. */
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { setTimeout as sleep } from "node:timers/promises";
import type { AwsClient } from "aws4fetch";
import { ConfigError, type RungsError } from "../../kernel/errors.ts";
import type { Random } from "../../kernel/random.ts";
import { storageFailed, storageRefused } from "../storage-errors.ts";
import { xmlText } from "./s3-xml.ts";

/** One request. */
export interface S3Request {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** None: the bucket itself. */
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Buffer;
  readonly signal?: AbortSignal | undefined;
}

/** How requests are made. */
export interface S3RequestOptions {
  readonly bucket: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
  readonly endpoint?: string;
  readonly addressing?: "path" | "host";
  readonly timeoutMs: number;
  readonly attemptsMax: number;
  readonly backoffFirstMs: number;
  readonly random: Random;
}

export interface S3Requests {
  /**
   * Gives any answer but 429 and 5xx, which are tried again, as are broken connections and time-outs; then raises
   * `STORAGE_FAILED`. Raises the signal's reason, and `PACKAGE_MISSING` without aws4fetch.
   */
  send(request: S3Request): Promise<Response>;
  /** An answer's body; it ends with `STORAGE_FAILED` when the server falls silent or breaks off. */
  bodyOf(body: ReadableStream<Uint8Array> | null, key: string, signal: AbortSignal | undefined): Readable;
}

const backoffMsMax = 10_000;

export function createS3Requests(options: S3RequestOptions): S3Requests {
  const { timeoutMs, attemptsMax, backoffFirstMs, random } = options;
  const base = baseOf(options);
  let loading: Promise<AwsClient> | undefined;
  const client = () => {
    loading ??= loadClient(options).catch((error: unknown) => {
      loading = undefined;
      throw error;
    });
    return loading;
  };

  async function once({ method, key, query = {}, headers = {}, body, signal }: S3Request): Promise<Response> {
    const url = new URL(key === undefined ? base : `${base}/${key}`);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    const digest = createHash("sha256")
      .update(body ?? "")
      .digest("hex");
    const signed = await (await client()).sign(url.href, {
      method,
      headers: { ...headers, "x-amz-content-sha256": digest },
      ...(body === undefined ? {} : { body: body as Buffer<ArrayBuffer> }),
    });
    // Covers the sending of the body and the wait for the answer's head; its body has a watch of its own.
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    const onAbort = () => limit.abort(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    try {
      signal?.throwIfAborted();
      return await fetch(signed.url, {
        method,
        headers: signed.headers,
        signal: limit.signal,
        redirect: "manual",
        ...(body === undefined ? {} : { body: body as Buffer<ArrayBuffer> }),
      });
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  return {
    async send(request) {
      const { method, key, signal } = request;
      const what = `${method} of ${key === undefined ? "the bucket" : `"${key}"`} at ${new URL(base).host}`;
      for (let attempt = 1; ; attempt++) {
        let failure: RungsError;
        try {
          const response = await once(request);
          if (response.status < 500 && response.status !== 429) return response;
          await response.body?.cancel();
          failure = storageFailed(`${what} was answered by ${response.status}, ${attempt} time(s)`, undefined);
        } catch (error) {
          if (signal?.aborted === true) throw signal.reason;
          if (error instanceof ConfigError) throw error;
          failure = storageFailed(`${what} failed ${attempt} time(s): ${reasonOf(error)}`, error);
        }
        if (attempt >= attemptsMax) throw failure;
        const waitMs = Math.min(backoffMsMax, backoffFirstMs * 2 ** (attempt - 1));
        await sleep(waitMs / 2 + (waitMs / 2) * random.next(), undefined, signal === undefined ? {} : { signal }).catch(
          () => {
            throw signal?.reason;
          },
        );
      }
    },
    bodyOf: (body, key, signal) => Readable.from(chunksOf(body, { key, timeoutMs, signal }), { objectMode: false }),
  };
}

/** Only the wait for the server counts, not the time that the reader takes between chunks. */
async function* chunksOf(
  body: ReadableStream<Uint8Array> | null,
  {
    key,
    timeoutMs,
    signal,
  }: { readonly key: string; readonly timeoutMs: number; readonly signal: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  if (body === null) return;
  const reader = body.getReader();
  let isDone = false;
  try {
    while (!isDone) {
      const read = await within(reader.read(), timeoutMs, signal).catch((error: unknown) => {
        if (signal?.aborted === true) throw signal.reason;
        throw storageFailed(`"${key}" broke off while it was read: ${reasonOf(error)}`, error);
      });
      isDone = read.done;
      if (read.value !== undefined) yield read.value;
    }
  } finally {
    if (!isDone) await reader.cancel().catch(() => {});
  }
}

async function within<R>(work: Promise<R>, timeoutMs: number, signal: AbortSignal | undefined): Promise<R> {
  let end: (reason: unknown) => void = () => {};
  const ended = new Promise<never>((_, reject) => {
    end = reject;
  });
  const onAbort = () => end(signal?.reason);
  const timer = setTimeout(() => end(new Error(`no bytes within ${timeoutMs} ms`)), timeoutMs);
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted === true) onAbort();
  try {
    return await Promise.race([work, ended]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
    work.catch(() => {});
  }
}

/** The error of an answer that is none of success. Reads its body; never repeats it, which may name keys. */
export async function refusalOf(response: Response, what: string): Promise<RungsError> {
  const text = (await response.text().catch(() => "")).slice(0, 10_000);
  const code = xmlText(text, "Code") ?? "no code";
  const message = `${what} was answered by ${response.status} (${code})`;
  if ([301, 307, 400, 401, 403].includes(response.status) || code === "NoSuchBucket")
    return storageRefused(`${message}. Check bucket, region, endpoint, credentials and their rights.`);
  return storageFailed(message, undefined, response.status >= 500 || code === "NoSuchUpload");
}

function reasonOf(error: unknown): string {
  const cause = (error as { cause?: { code?: unknown; message?: unknown } } | undefined)?.cause;
  const told = cause?.code ?? cause?.message ?? (error instanceof Error ? error.message : error);
  return String(told);
}

function baseOf({ endpoint, bucket, region, addressing }: S3RequestOptions): string {
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket))
    throw new ConfigError("CONFIG_INVALID", "A bucket's name is 3 to 63 of a-z, 0-9, . and -.");
  const url = new URL(endpoint ?? `https://s3.${region}.amazonaws.com`);
  const isPath = (addressing ?? (endpoint === undefined ? "host" : "path")) === "path";
  const path = url.pathname.replace(/\/+$/, "");
  return isPath ? `${url.protocol}//${url.host}${path}/${bucket}` : `${url.protocol}//${bucket}.${url.host}${path}`;
}

async function loadClient({
  accessKeyId,
  secretAccessKey,
  sessionToken,
  region,
}: S3RequestOptions): Promise<AwsClient> {
  const { AwsClient } = await import("aws4fetch").catch((error: unknown) => {
    const message = "S3 needs the package aws4fetch, which cannot be loaded. Install it: npm install aws4fetch";
    throw new ConfigError("PACKAGE_MISSING", message, { cause: error });
  });
  return new AwsClient({
    accessKeyId,
    secretAccessKey,
    ...(sessionToken === undefined ? {} : { sessionToken }),
    service: "s3",
    region,
    retries: 0,
  });
}
