/**
 * Objects in a bucket of anything that speaks S3's protocol (Amazon S3, MinIO, Ceph, R2), signed by aws4fetch.
 *
 * Bodies are sent in parts, one in memory at a time, and a body that fits into one is sent whole. Requests that may be
 * repeated are, on errors of the server and the network: a part is, a put as a whole is the caller's to repeat.
 *
 * Protocol: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
 */
import type { Readable } from "node:stream";
import type { ReadableStream } from "node:stream/web";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { ConfigError } from "../../kernel/errors.ts";
import { type Random, systemRandom } from "../../kernel/random.ts";
import { checkListLimit, checkObjectKey, checkObjectPrefix } from "../object-key.ts";
import type { ObjectInfo, ObjectStore, PutOptions } from "../object-store.ts";
import { storageFailed, storageLimitExceeded, storageRangeInvalid } from "../storage-errors.ts";
import { createS3Requests, refusalOf, type S3Requests } from "./s3-request.ts";
import { xmlElements, xmlText } from "./s3-xml.ts";

/** Settings of {@link s3Objects}. */
export interface S3ObjectsOptions {
  readonly bucket: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Of temporary credentials. */
  readonly sessionToken?: string;
  /** Address of the server; default Amazon's of the region. */
  readonly endpoint?: string;
  /** Where the bucket's name stands; default "path" with an endpoint of yours, "host" at Amazon. */
  readonly addressing?: "path" | "host";
  /** Bytes sent at a time, and held in memory for each put; from 5 MiB, the protocol's least; default 8 MiB. */
  readonly partBytes?: number;
  /** Longest wait for an answer to begin, and for the next bytes of a body; default 30,000 ms. */
  readonly timeoutMs?: number;
  /** Tries of one request; default 4. */
  readonly attemptsMax?: number;
  /** Wait before the second try; doubles, with jitter; default 200 ms. */
  readonly backoffFirstMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
}

const partBytesMin = 5 * 1_024 * 1_024;
/** The protocol's bound on parts of one object. */
const partsMax = 10_000;

/** The driver. aws4fetch is loaded at the first call, which raises `PACKAGE_MISSING` without it. */
export function s3Objects(options: S3ObjectsOptions): ObjectStore {
  const partBytes = options.partBytes ?? 8 * 1_024 * 1_024;
  if (!Number.isInteger(partBytes) || partBytes < partBytesMin)
    throw new ConfigError("CONFIG_INVALID", `S3 takes parts from ${partBytesMin} bytes; ${partBytes} were asked for.`);
  const requests = createS3Requests({
    ...options,
    timeoutMs: options.timeoutMs ?? 30_000,
    attemptsMax: options.attemptsMax ?? 4,
    backoffFirstMs: options.backoffFirstMs ?? 200,
    random: options.random ?? systemRandom,
  });
  return new S3Objects(requests, partBytes, options.clock ?? systemClock);
}

class S3Objects implements ObjectStore {
  private readonly requests: S3Requests;
  private readonly partBytes: number;
  private readonly clock: Clock;

  constructor(requests: S3Requests, partBytes: number, clock: Clock) {
    this.requests = requests;
    this.partBytes = partBytes;
    this.clock = clock;
  }

  async put(key: string, body: Readable, options: PutOptions): Promise<ObjectInfo> {
    const { contentType, sizeBytesMax, signal } = options;
    const onAbort = () => body.destroy(signal?.reason instanceof Error ? signal.reason : new Error("aborted"));
    try {
      checkObjectKey(key);
      signal?.throwIfAborted();
      signal?.addEventListener("abort", onAbort, { once: true });
      const partBytes = Math.max(this.partBytes, Math.ceil(sizeBytesMax / (partsMax - 1)));
      const parts = partsOf(body, { key, partBytes, sizeBytesMax });
      const { value: first, done } = await parts.next();
      const whole = done === true ? Buffer.alloc(0) : first;
      const stored =
        whole.length < partBytes
          ? await this.putWhole(key, whole, contentType, signal)
          : await this.putParts(key, whole, parts, { contentType, signal });
      return { key, contentType, ...stored };
    } catch (error) {
      body.destroy();
      throw signal?.aborted === true ? signal.reason : error;
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  async open(key: string, { range, signal }: Parameters<ObjectStore["open"]>[1] = {}) {
    checkObjectKey(key);
    const headers = range === undefined ? {} : { range: `bytes=${range.start}-${range.end}` };
    const response = await this.requests.send({ method: "GET", key, headers, signal });
    if (response.status === 416) {
      await response.body?.cancel();
      throw storageRangeInvalid(key, range?.start ?? 0);
    }
    if (response.status === 404) return this.missing(response, key);
    if (!response.ok) throw await refusalOf(response, `GET of "${key}"`);
    const total = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
    if (range !== undefined && response.status !== 206) {
      await response.body?.cancel();
      throw storageFailed(`The server ignored the range asked of "${key}"`, undefined, false);
    }
    const info = this.infoOf(key, response, total);
    return { ...info, body: this.requests.bodyOf(response.body as ReadableStream<Uint8Array> | null, key, signal) };
  }

  async stat(key: string): Promise<ObjectInfo | undefined> {
    checkObjectKey(key);
    const response = await this.requests.send({ method: "HEAD", key });
    if (response.status === 404) return undefined;
    if (!response.ok) throw await refusalOf(response, `HEAD of "${key}"`);
    return this.infoOf(key, response);
  }

  async remove(key: string): Promise<void> {
    checkObjectKey(key);
    const response = await this.requests.send({ method: "DELETE", key });
    if (response.status === 404) return void (await this.missing(response, key));
    if (!response.ok) throw await refusalOf(response, `DELETE of "${key}"`);
    await response.body?.cancel();
  }

  async list({ prefix, after, limit }: Parameters<ObjectStore["list"]>[0]) {
    checkObjectPrefix(prefix);
    checkListLimit(limit);
    const query = { "list-type": "2", prefix, "max-keys": String(limit), ...(after ? { "start-after": after } : {}) };
    const response = await this.requests.send({ method: "GET", query });
    if (!response.ok) throw await refusalOf(response, `List of "${prefix}"`);
    return xmlElements(await response.text(), "Contents").map((item) => ({
      key: xmlText(item, "Key") ?? "",
      sizeBytes: Number(xmlText(item, "Size")),
      modifiedAt: new Date(xmlText(item, "LastModified") ?? Number.NaN),
    }));
  }

  /** No such object; but no such bucket is a matter for a person. */
  private async missing(response: Response, key: string): Promise<undefined> {
    const text = await response.text();
    if (xmlText(text, "Code") === "NoSuchBucket")
      throw await refusalOf(new Response(text, { status: 404 }), `"${key}"`);
    return undefined;
  }

  private infoOf(key: string, { headers }: Response, total?: string): ObjectInfo {
    return {
      key,
      sizeBytes: Number(total ?? headers.get("content-length")),
      contentType: headers.get("content-type") ?? "application/octet-stream",
      etag: headers.get("etag") ?? '""',
      modifiedAt: new Date(headers.get("last-modified") ?? this.clock.now()),
    };
  }

  private async putWhole(key: string, body: Buffer, contentType: string, signal: AbortSignal | undefined) {
    const response = await this.requests.send({
      method: "PUT",
      key,
      body,
      headers: { "content-type": contentType },
      signal,
    });
    if (!response.ok) throw await refusalOf(response, `PUT of "${key}"`);
    await response.body?.cancel();
    return { sizeBytes: body.length, etag: response.headers.get("etag") ?? '""', modifiedAt: this.dateOf(response) };
  }

  private async putParts(
    key: string,
    first: Buffer,
    rest: AsyncGenerator<Buffer, void>,
    { contentType, signal }: { readonly contentType: string; readonly signal: AbortSignal | undefined },
  ) {
    const headers = { "content-type": contentType };
    const started = await this.requests.send({ method: "POST", key, query: { uploads: "" }, headers, signal });
    if (!started.ok) throw await refusalOf(started, `Begin of the parts of "${key}"`);
    const uploadId = xmlText(await started.text(), "UploadId");
    if (uploadId === undefined)
      throw storageFailed(`The server gave no id for the parts of "${key}"`, undefined, false);
    try {
      const tags: string[] = [];
      let sizeBytes = 0;
      let body: Buffer | undefined = first;
      while (body !== undefined) {
        const query = { partNumber: String(tags.length + 1), uploadId };
        const sent = await this.requests.send({ method: "PUT", key, query, body, signal });
        if (!sent.ok) throw await refusalOf(sent, `Part ${tags.length + 1} of "${key}"`);
        await sent.body?.cancel();
        tags.push(sent.headers.get("etag") ?? "");
        sizeBytes += body.length;
        const next: IteratorResult<Buffer, void> = await rest.next();
        body = next.done === true ? undefined : next.value;
      }
      return { sizeBytes, ...(await this.complete(key, uploadId, tags, signal)) };
    } catch (error) {
      // What cannot be ended now costs room until the bucket's own rule on unfinished parts removes it.
      const aborted = this.requests.send({ method: "DELETE", key, query: { uploadId } });
      await aborted.then((response) => response.body?.cancel()).catch(() => {});
      throw error;
    }
  }

  private async complete(key: string, uploadId: string, tags: readonly string[], signal: AbortSignal | undefined) {
    const parts = tags.map((tag, index) => `<Part><PartNumber>${index + 1}</PartNumber><ETag>${tag}</ETag></Part>`);
    const body = Buffer.from(`<CompleteMultipartUpload>${parts.join("")}</CompleteMultipartUpload>`);
    const response = await this.requests.send({ method: "POST", key, query: { uploadId }, body, signal });
    if (!response.ok) throw await refusalOf(response, `End of the parts of "${key}"`);
    // The status is sent before the work is done: a failure stands in the body of a 200.
    const text = await response.text();
    const etag = xmlText(text, "ETag");
    if (etag === undefined) throw await refusalOf(new Response(text, { status: 500 }), `End of the parts of "${key}"`);
    return { etag, modifiedAt: this.dateOf(response) };
  }

  private dateOf({ headers }: Response): Date {
    return new Date(headers.get("date") ?? this.clock.now());
  }
}

/** Cuts a body into pieces of one size, the last one shorter; nothing for an empty body. */
async function* partsOf(
  body: Readable,
  { key, partBytes, sizeBytesMax }: { readonly key: string; readonly partBytes: number; readonly sizeBytesMax: number },
): AsyncGenerator<Buffer, void> {
  let waiting: Buffer[] = [];
  let waitingBytes = 0;
  let sizeBytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer | string>) {
    const bytes = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    sizeBytes += bytes.length;
    if (sizeBytes > sizeBytesMax) throw storageLimitExceeded(key, sizeBytesMax);
    waiting.push(bytes);
    waitingBytes += bytes.length;
    while (waitingBytes >= partBytes) {
      const all = Buffer.concat(waiting);
      yield all.subarray(0, partBytes);
      waiting = [all.subarray(partBytes)];
      waitingBytes = all.length - partBytes;
    }
  }
  if (waitingBytes > 0) yield Buffer.concat(waiting);
}
