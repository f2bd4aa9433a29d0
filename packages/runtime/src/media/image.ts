/**
 * Images: the port, and the policy of what is let in and what comes out.
 *
 * Before a pixel is decoded: the file's size, its first bytes (content, not name), and then its header's dimensions and
 * pages are judged. Renditions are upright, in sRGB and without any metadata, so that no GPS position is published.
 */
import { ConfigError } from "../kernel/errors.ts";
import { type MediaFile, type MediaOutput, mediaLimitExceeded, mediaUnreadable } from "./media.ts";

/** A picture to make. */
export interface ImageRendition {
  /** Name of its file without ending: lower-case letters, digits, `-`; up to 64 characters. */
  readonly name: string;
  readonly widthPxMax: number;
  readonly heightPxMax: number;
  /** `inside`: whole picture, kept within the box. `cover`: cut to the box's shape. Neither enlarges. */
  readonly fit: "inside" | "cover";
  readonly format: "webp" | "avif";
  /** 1 to 100; default 80 for WebP, 50 for AVIF, which look alike. */
  readonly quality?: number;
  /** Keeps an animation, in WebP only; default false: the first frame. */
  readonly isAnimated?: boolean;
}

/** A picture that was made. */
export interface ImageFile extends MediaFile {
  readonly name: string;
}

/** What an untrusted image may be and cost. */
export interface ImageLimits {
  /** Default 20 MiB. */
  readonly inputBytesMax: number;
  /** Width x height, times pages where an animation is kept; default 50,000,000 (200 MB decoded). */
  readonly pixelsMax: number;
  /** Frames of an animation; default 300. */
  readonly pagesMax: number;
  /** Renditions of one call; default 16. */
  readonly renditionsMax: number;
  /** Time for one call from its turn on; default 30,000 ms. */
  readonly timeLimitMs: number;
}

/** Makes pictures from untrusted files. */
export interface Images {
  /**
   * Makes the renditions of a local file, in the given order. On failure or abort nothing is left behind.
   *
   * Raises `MEDIA_UNREADABLE` and `MEDIA_LIMIT_EXCEEDED` (permanent), `MEDIA_TIMEOUT`, `MEDIA_FAILED` and `OVERLOADED`
   * (try again), `CONFIG_INVALID` for impossible renditions, `PACKAGE_MISSING` without the driver's package, the signal's
   * reason, and the system's error when there is no such file.
   */
  render(
    inputPath: string,
    renditions: readonly ImageRendition[],
    options?: { readonly signal?: AbortSignal },
  ): Promise<MediaOutput<readonly ImageFile[]>>;
}

/** The limits of {@link ImageLimits} where none are set. */
export const imageLimitsDefault: ImageLimits = {
  inputBytesMax: 20 * 1024 * 1024,
  pixelsMax: 50_000_000,
  pagesMax: 300,
  renditionsMax: 16,
  timeLimitMs: 30_000,
};

/** Kinds of image that are read. SVG is not: it is a program that may refer to other files. */
export type ImageKind = "jpeg" | "png" | "gif" | "webp" | "avif";

/** WebP's own bound (RFC 9649, section 2.1: 14 bits each). */
const sidePxMax = 16_383;

/** How many bytes {@link imageKindOf} wants to see. */
export const imageHeadBytes = 32;

/** The kind of image by its first bytes; undefined for any other. */
export function imageKindOf(head: Uint8Array): ImageKind | undefined {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  const ascii = (start: number, end: number) => bytes.toString("latin1", start, end);
  if (bytes.length < 12) return undefined;
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return "jpeg";
  if (ascii(0, 8) === "\x89PNG\r\n\x1a\n") return "png";
  if (ascii(0, 6) === "GIF87a" || ascii(0, 6) === "GIF89a") return "gif";
  if (ascii(0, 4) === "RIFF" && ascii(8, 12) === "WEBP") return "webp";
  if (ascii(4, 8) === "ftyp" && /avif|avis/.test(ascii(8, imageHeadBytes))) return "avif";
  return undefined;
}

/** What an image's header says. */
export interface ImageHeader {
  readonly format: string;
  readonly widthPx: number;
  /** Of one page. */
  readonly heightPx: number;
  readonly pages: number;
}

/** Raises `MEDIA_UNREADABLE` or `MEDIA_LIMIT_EXCEEDED` for an image that must not be decoded. */
export function checkImageHeader(header: ImageHeader, limits: ImageLimits, isAnimationKept: boolean): void {
  const { widthPx, heightPx, pages } = header;
  if (!(widthPx > 0 && heightPx > 0)) throw mediaUnreadable("it has no dimensions");
  if (pages > limits.pagesMax) throw mediaLimitExceeded("frames", String(pages), String(limits.pagesMax));
  const pixels = widthPx * heightPx * (isAnimationKept ? pages : 1);
  if (pixels > limits.pixelsMax) {
    const observed = `${widthPx} x ${heightPx}${isAnimationKept && pages > 1 ? ` x ${pages} frames` : ""}`;
    throw mediaLimitExceeded("pixels", observed, String(limits.pixelsMax));
  }
}

/** Raises `CONFIG_INVALID` for renditions that cannot be made. */
export function checkRenditions(renditions: readonly ImageRendition[], limits: ImageLimits): void {
  const problem = renditions.map(problemOf).find((each) => each !== undefined);
  if (problem !== undefined) throw new ConfigError("CONFIG_INVALID", problem);
  if (renditions.length > limits.renditionsMax)
    throw new ConfigError(
      "CONFIG_INVALID",
      `${renditions.length} renditions asked for; limit ${limits.renditionsMax}.`,
    );
  const names = renditions.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new ConfigError("CONFIG_INVALID", `Two renditions are called "${twice}".`);
}

function problemOf({ name, widthPxMax, heightPxMax, quality, format, isAnimated }: ImageRendition): string | undefined {
  const isSide = (px: number) => Number.isInteger(px) && px >= 1 && px <= sidePxMax;
  // The name becomes a file's name: nothing that leads out of the folder or reads as an option.
  if (!/^[a-z0-9][a-z0-9-]{0,63}$/.test(name))
    return `A rendition is called ${JSON.stringify(name.slice(0, 80))}; use up to 64 of a-z, 0-9 and "-".`;
  if (!isSide(widthPxMax) || !isSide(heightPxMax))
    return `Rendition "${name}" asks for ${widthPxMax} x ${heightPxMax}; each side is a whole number from 1 to ${sidePxMax}.`;
  if (quality !== undefined && !(Number.isInteger(quality) && quality >= 1 && quality <= 100))
    return `Rendition "${name}" asks for quality ${quality}; it is a whole number from 1 to 100.`;
  if (isAnimated === true && format !== "webp") return `Rendition "${name}" is animated; only WebP can be.`;
  return undefined;
}

/** The box to resize to: as asked for, or smaller in the same shape where a picture would have to be enlarged. */
export function renditionBox(
  upright: { readonly widthPx: number; readonly heightPx: number },
  { widthPxMax, heightPxMax, fit }: Pick<ImageRendition, "widthPxMax" | "heightPxMax" | "fit">,
): { readonly widthPx: number; readonly heightPx: number } {
  if (fit === "inside") return { widthPx: widthPxMax, heightPx: heightPxMax };
  const scale = Math.min(1, upright.widthPx / widthPxMax, upright.heightPx / heightPxMax);
  const side = (px: number) => Math.max(1, Math.round(px * scale));
  return { widthPx: side(widthPxMax), heightPx: side(heightPxMax) };
}
