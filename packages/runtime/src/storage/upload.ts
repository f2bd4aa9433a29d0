/** Uploads: what a request may bring, and the errors that say why it was refused. */
import { RungsError } from "../kernel/errors.ts";

/** Bounds of one upload. */
export interface UploadLimits {
  /** Bytes of the file. */
  readonly fileBytesMax: number;
  /** Time until the request has arrived whole; default 15 minutes. */
  readonly timeMaxMs: number;
  /** Longest time without a byte; default 20,000 ms. */
  readonly idleMaxMs: number;
  /** Parts of the form, file and fields together; default 20. */
  readonly partsMax: number;
  /** Bytes of one field; default 16 KiB. */
  readonly fieldBytesMax: number;
}

/** The limits of {@link UploadLimits} where none are set; the file's size is always the caller's to say. */
export const uploadLimitsDefault: Omit<UploadLimits, "fileBytesMax"> = {
  timeMaxMs: 15 * 60_000,
  idleMaxMs: 20_000,
  partsMax: 20,
  fieldBytesMax: 16 * 1_024,
};

const statusOf = {
  UPLOAD_INVALID: 400,
  UPLOAD_TIMEOUT: 408,
  UPLOAD_LIMIT_EXCEEDED: 413,
  UPLOAD_TYPE_REFUSED: 415,
} as const;

/** Why an upload was refused. */
export type UploadRefusal = keyof typeof statusOf;

/** The upload is not taken; web frameworks answer with `statusCode`. */
export class UploadRefusedError extends RungsError {
  override readonly name = "UploadRefusedError";
  /** 400 `UPLOAD_INVALID`, 408 `UPLOAD_TIMEOUT`, 413 `UPLOAD_LIMIT_EXCEEDED`, 415 `UPLOAD_TYPE_REFUSED`. */
  readonly statusCode: number;
  /** The message for the body of the answer; safe to show. */
  readonly errors: { readonly file: readonly [string] };

  /** `problem` continues "The file", e.g. "is over 20 MB, the limit". */
  constructor(code: UploadRefusal, problem: string, cause?: unknown) {
    super(code, `The file ${problem}.`, { cause });
    this.statusCode = statusOf[code];
    this.errors = { file: [problem] };
  }
}

/** A size for people: "1 MB", "1.5 GB", decimal. */
export function sizeText(bytes: number): string {
  if (bytes < 1_000) return `${bytes} bytes`;
  const units = ["kB", "MB", "GB", "TB"];
  const power = Math.min(Math.floor(Math.log10(bytes) / 3), units.length);
  return `${Number((bytes / 1_000 ** power).toPrecision(3))} ${units[power - 1]}`;
}
