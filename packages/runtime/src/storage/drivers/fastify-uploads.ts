/**
 * Uploads on Fastify: one file of a multipart form, streamed to where the caller puts it, never held whole.
 *
 * The kind of a file is what its first bytes say; its name and declared type are hearsay. A client that is slow, silent or
 * sends too much is told so and cut. The rest of a refused request is read for a moment, because a client that is still
 * sending would see a broken connection in place of the answer.
 */
import type { Readable } from "node:stream";
import type { Multipart, MultipartFile } from "@fastify/multipart";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { ConfigError, RungsError } from "../../kernel/errors.ts";
import { sizeText, type UploadLimits, UploadRefusedError, uploadLimitsDefault } from "../upload.ts";
import { headOf, type KindOfBytes, kindReader } from "./upload-kind.ts";
import { type UploadWatch, watchUpload } from "./upload-watch.ts";

/** The file as it arrives. */
export interface IncomingFile {
  /** Read it to its end, or destroy it. Ends with an `UploadRefusedError` when the request does not go well. */
  readonly body: Readable;
  /** By content, e.g. "image/png"; one of those accepted. */
  readonly contentType: string;
  /** Usual ending of such files, without dot. */
  readonly extension: string;
  /** What the client calls it: for people only, at most 200 characters, no control characters. */
  readonly name: string;
  /** Aborted when the client is cut or goes away. */
  readonly signal: AbortSignal;
}

/** Settings of {@link receiveUpload}. `T`: what storing the file gives. */
export interface ReceiveUploadOptions<T> {
  /** The file's field; default "file". */
  readonly field?: string;
  /** Kinds of content that are taken, e.g. `["image/png", "image/jpeg"]`. */
  readonly accept: readonly string[];
  readonly limits: Pick<UploadLimits, "fileBytesMax"> & Partial<UploadLimits>;
  /** Judges the fields that stand before the file, before any of the file is read: raise to refuse. */
  readonly before?: (fields: Readonly<Record<string, string>>) => void | Promise<void>;
  /** Stores the file; must read all of it. */
  readonly store: (file: IncomingFile) => Promise<T>;
  /** Takes back what was stored when the rest of the request does not go well. */
  readonly discard: (stored: T) => Promise<void>;
}

/** An upload that arrived whole. */
export interface ReceivedUpload<T> {
  readonly stored: T;
  /** The text fields of the form; the first of each name. */
  readonly fields: Readonly<Record<string, string>>;
}

/** Room for the form around the file. */
const formBytesMax = 256 * 1_024;
/** How long what is left of a refused request is still read; of a client that was too slow, only the answer goes out. */
const lingerMs = 5_000;
const lingerAfterCutMs = 500;

/**
 * Lets the routes of this scope take multipart forms. Register it in a scope of their own: it adds hooks to each route.
 * Raises `PACKAGE_MISSING` without @fastify/multipart or file-type.
 */
export async function acceptUploads(scope: FastifyInstance): Promise<void> {
  const { default: multipart } = await load(() => import("@fastify/multipart"), "@fastify/multipart");
  await kindReader();
  await scope.register(multipart, { throwFileSizeLimit: false });
}

/**
 * Options of a route that receives uploads: time enough for them, in place of the server's limit for short requests. The
 * limits themselves are held by {@link receiveUpload}.
 */
export function uploadRoute(limits: Partial<Pick<UploadLimits, "timeMaxMs">> = {}): {
  readonly config: { readonly requestTimeoutMs: number };
} {
  return { config: { requestTimeoutMs: (limits.timeMaxMs ?? uploadLimitsDefault.timeMaxMs) + lingerMs } };
}

/**
 * Receives one file. Raises {@link UploadRefusedError}, which says what the client may do, and what `before` and `store`
 * raise. After any failure nothing is left: what was stored is discarded.
 */
export async function receiveUpload<T>(
  request: FastifyRequest,
  options: ReceiveUploadOptions<T>,
): Promise<ReceivedUpload<T>> {
  const limits = { ...uploadLimitsDefault, ...options.limits };
  let watch: UploadWatch | undefined;
  try {
    checkHead(request, limits);
    watch = watchUpload(request.raw, limits);
    return await new Receiver(request, { ...options, limits }, watch).run();
  } catch (error) {
    lingerOver(request, watch?.cut === undefined ? lingerMs : lingerAfterCutMs);
    throw refusalFor(error, watch, limits);
  } finally {
    watch?.end();
  }
}

class Receiver<T> {
  private readonly request: FastifyRequest;
  private readonly options: ReceiveUploadOptions<T> & { readonly limits: UploadLimits };
  private readonly watch: UploadWatch;
  private readonly fields: Record<string, string> = Object.create(null);
  private stored: { readonly value: T } | undefined;

  constructor(
    request: FastifyRequest,
    options: ReceiveUploadOptions<T> & { readonly limits: UploadLimits },
    watch: UploadWatch,
  ) {
    this.request = request;
    this.options = options;
    this.watch = watch;
  }

  async run(): Promise<ReceivedUpload<T>> {
    const { limits } = this.options;
    const parts = this.request.parts({
      limits: {
        // One more than allowed: the parser cuts silently at its limit, and a cut file must not pass for a whole one.
        fileSize: limits.fileBytesMax + 1,
        files: 1,
        parts: limits.partsMax,
        fields: limits.partsMax,
        fieldSize: limits.fieldBytesMax,
        fieldNameSize: 100,
        headerPairs: 20,
      },
    });
    try {
      // The rest of the form may fall silent too.
      for (;;) {
        const part = await this.watch.orCut(parts.next());
        if (part.done === true) break;
        await this.take(part.value);
      }
      if (this.stored === undefined) throw new UploadRefusedError("UPLOAD_INVALID", "is missing from the form");
      return { stored: this.stored.value, fields: { ...this.fields } };
    } catch (error) {
      if (this.stored !== undefined) await this.options.discard(this.stored.value);
      throw error;
    }
  }

  private async take(part: Multipart): Promise<void> {
    if (part.type === "field") {
      if (part.valueTruncated || part.fieldnameTruncated)
        throw new UploadRefusedError("UPLOAD_LIMIT_EXCEEDED", "comes with a field that is too long");
      if (!(part.fieldname in this.fields)) this.fields[part.fieldname] = String(part.value);
      return;
    }
    try {
      await this.takeFile(part);
    } finally {
      part.file.destroy();
    }
  }

  private async takeFile(part: MultipartFile): Promise<void> {
    const { field = "file", accept, before, store, limits } = this.options;
    const { watch } = this;
    if (part.fieldname !== field || this.stored !== undefined)
      throw new UploadRefusedError("UPLOAD_INVALID", `must be the only one, in the field "${field}"`);
    await before?.({ ...this.fields });
    const head = await watch.orCut(headOf(part.file));
    if (head.length === 0) throw new UploadRefusedError("UPLOAD_INVALID", "is empty");
    const kind = await kindOf(head);
    if (kind === undefined || !accept.includes(kind.contentType)) throw typeRefused(kind, accept);
    const body = watch.counted(part.file, head, limits.fileBytesMax);
    const storing = store({ ...kind, name: nameOf(part.filename), body, signal: watch.signal });
    try {
      this.stored = { value: await watch.orCut(storing) };
    } catch (error) {
      // Cut at the last moment, it may be stored after all.
      storing.then(this.options.discard).catch(() => {});
      throw error;
    } finally {
      body.destroy();
    }
    if (part.file.truncated || !body.readableEnded)
      throw new UploadRefusedError("UPLOAD_INVALID", "was not read to its end");
  }
}

async function kindOf(head: Buffer): Promise<KindOfBytes | undefined> {
  return (await kindReader())(head);
}

/** What can be judged before a byte of the body is read. */
function checkHead(request: FastifyRequest, limits: UploadLimits): void {
  if (typeof request.parts !== "function")
    throw new ConfigError("CONFIG_INVALID", "This route takes no uploads: call acceptUploads() for its scope first.");
  if (!request.isMultipart()) throw new UploadRefusedError("UPLOAD_TYPE_REFUSED", "must come as multipart/form-data");
  const declared = Number(request.headers["content-length"]);
  if (declared > limits.fileBytesMax + formBytesMax + limits.partsMax * limits.fieldBytesMax) throw tooLarge(limits);
}

function tooLarge({ fileBytesMax }: UploadLimits): UploadRefusedError {
  return new UploadRefusedError("UPLOAD_LIMIT_EXCEEDED", `is over ${sizeText(fileBytesMax)}, the limit`);
}

function typeRefused(kind: KindOfBytes | undefined, accept: readonly string[]): UploadRefusedError {
  const found = kind === undefined ? "of no kind that is known here" : `${kind.contentType} by its content`;
  return new UploadRefusedError("UPLOAD_TYPE_REFUSED", `is ${found}; accepted: ${accept.join(", ")}`);
}

/** What the client is told. Failures of the store and of the caller's own checks go on as they are. */
function refusalFor(error: unknown, watch: UploadWatch | undefined, limits: UploadLimits): unknown {
  // When the client was cut, all else is its consequence.
  if (watch?.cut !== undefined) return watch.cut;
  if (error instanceof RungsError && error.code === "STORAGE_LIMIT_EXCEEDED") return tooLarge(limits);
  const code = String((error as { code?: unknown } | undefined)?.code ?? "");
  if (code === "FST_REQ_FILE_TOO_LARGE") return tooLarge(limits);
  if (code === "FST_PARTS_LIMIT" || code === "FST_FILES_LIMIT" || code === "FST_FIELDS_LIMIT")
    return new UploadRefusedError("UPLOAD_LIMIT_EXCEEDED", "comes with too many parts", error);
  if (code.startsWith("FST_") || isParserError(error))
    return new UploadRefusedError("UPLOAD_INVALID", "did not arrive whole", error);
  return error;
}

/** The form's parser raises plain errors; only their words tell. */
function isParserError(error: unknown): boolean {
  return (
    error instanceof Error &&
    /multipart|terminated early|boundary|malformed|unexpected end|header/i.test(error.message) &&
    !(error instanceof RungsError) &&
    (error as { statusCode?: unknown }).statusCode === undefined
  );
}

/** Goes on reading for a moment, and then ends the connection if the client has not ended. */
function lingerOver({ raw }: FastifyRequest, forMs: number): void {
  if (raw.complete || raw.destroyed) return;
  raw.unpipe();
  raw.resume();
  const timer = setTimeout(() => raw.destroy(), forMs);
  raw.once("end", () => clearTimeout(timer));
  raw.once("close", () => clearTimeout(timer));
}

function nameOf(name: string | undefined): string {
  return (name ?? "")
    .toWellFormed()
    .replace(/\p{Cc}/gu, "")
    .slice(0, 200);
}

async function load<M>(importing: () => Promise<M>, name: string): Promise<M> {
  return importing().catch((error: unknown) => {
    const message = `Uploads need the package ${name}, which cannot be loaded. Install it: npm install ${name}`;
    throw new ConfigError("PACKAGE_MISSING", message, { cause: error });
  });
}
