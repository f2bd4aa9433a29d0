/**
 * Images by sharp (libvips).
 *
 * Order of one call: gate, size and first bytes, header, then rendition by rendition, so that one call holds one
 * picture's pixels at a time. libvips cannot be interrupted from outside; its own time limit ends it between rows, and an
 * abort ends the call at once while the slot and the folder are held until the thread is really done.
 */
import { open, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import type { Metadata, Sharp, SharpOptions } from "sharp";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { ConfigError, RungsError } from "../../kernel/errors.ts";
import {
  checkImageHeader,
  checkRenditions,
  type ImageFile,
  type ImageLimits,
  type ImageRendition,
  type Images,
  imageHeadBytes,
  imageKindOf,
  imageLimitsDefault,
  renditionBox,
} from "../image.ts";
import { mediaFailed, mediaLimitExceeded, mediaTimeout, mediaUnreadable } from "../media.ts";
import { createWorkFolders, type WorkFolder } from "../work-folder.ts";
import { createWorkGate } from "../work-gate.ts";

/** Settings of {@link sharpImages}. */
export interface SharpImagesOptions {
  /** Those left out keep their defaults. */
  readonly limits?: Partial<ImageLimits>;
  /** Calls at work at once; default 2. */
  readonly concurrencyMax?: number;
  /** Calls that may wait; default 64. */
  readonly queueMax?: number;
  /** Threads of libvips a picture, for the whole process; default 1, which keeps cores for requests. */
  readonly threads?: number;
  /** Memory of libvips' cache of operations, for the whole process, in MB; default 16. No files are held open. */
  readonly cacheMegabytesMax?: number;
  /** Damage that makes a file unreadable; default "error", which takes files cut short but lets cameras' oddities pass. */
  readonly failOn?: "truncated" | "error" | "warning";
  /** Parent of the temporary folders; default the system's. */
  readonly directory?: string;
  readonly clock?: Clock;
}

type SharpFactory = (input: string, options: SharpOptions) => Sharp;

const qualityDefault = { webp: 80, avif: 50 } as const;
/** Effort of the encoders, 0 to 9 for AVIF: 3 takes about a third of the default's time for a few per cent more bytes. */
const avifEffort = 3;

/** The driver. sharp is loaded at the first call, which raises `PACKAGE_MISSING` without it. */
export function sharpImages(options: SharpImagesOptions = {}): Images {
  const limits = { ...imageLimitsDefault, ...options.limits };
  const clock = options.clock ?? systemClock;
  const gate = createWorkGate({
    name: "Images",
    concurrencyMax: options.concurrencyMax ?? 2,
    queueMax: options.queueMax ?? 64,
  });
  const folders = createWorkFolders(clock, options.directory);
  let loading: Promise<SharpFactory> | undefined;
  const load = () => {
    loading ??= loadSharp(options).catch((error: unknown) => {
      loading = undefined;
      throw error;
    });
    return loading;
  };

  return {
    async render(inputPath, renditions, { signal } = {}) {
      checkRenditions(renditions, limits);
      const sharp = await load();
      let done: (() => void) | undefined;
      const work = async () => {
        const deadline = clock.monotonic() + limits.timeLimitMs;
        const folder = await folders.make();
        const call = new RenderCall({
          sharp,
          limits,
          failOn: options.failOn ?? "error",
          clock,
          deadline,
          folder,
          signal,
        });
        done?.();
        try {
          const files = await call.render(resolve(inputPath), renditions);
          signal?.throwIfAborted();
          if (call.isLate()) throw mediaTimeout("The image", limits.timeLimitMs);
          return { files, remove: () => folder.remove() };
        } catch (error) {
          await folder.remove();
          throw error;
        }
      };
      return await endingEarly(gate.run(work, signal), limits.timeLimitMs, signal, (turn) => {
        done = turn;
      });
    },
  };
}

interface RenderContext {
  readonly sharp: SharpFactory;
  readonly limits: ImageLimits;
  readonly failOn: "truncated" | "error" | "warning";
  readonly clock: Clock;
  readonly deadline: number;
  readonly folder: WorkFolder;
  readonly signal: AbortSignal | undefined;
}

class RenderCall {
  private readonly context: RenderContext;

  constructor(context: RenderContext) {
    this.context = context;
  }

  async render(input: string, renditions: readonly ImageRendition[]): Promise<ImageFile[]> {
    const { limits } = this.context;
    const kind = await this.sniff(input);
    const metadata = await this.attempt(() => this.open(input, 1).metadata());
    // libvips goes by content as well; should the two ever disagree, nobody knows what would be decoded.
    if (metadata.format !== kind && !(metadata.format === "heif" && kind === "avif"))
      throw mediaUnreadable(`it starts like ${kind} but holds ${metadata.format}`);
    const pages = metadata.pages ?? 1;
    const isAnimationKept = pages > 1 && renditions.some(({ isAnimated }) => isAnimated === true);
    const header = { format: kind, widthPx: metadata.width, heightPx: metadata.height, pages };
    checkImageHeader(header, limits, isAnimationKept);
    const files: ImageFile[] = [];
    for (const rendition of renditions) files.push(await this.make(input, metadata, rendition));
    return files;
  }

  isLate(): boolean {
    return this.context.clock.monotonic() > this.context.deadline;
  }

  private async sniff(input: string): Promise<string> {
    const { inputBytesMax } = this.context.limits;
    const found = await stat(input);
    if (!found.isFile()) throw mediaUnreadable("it is not a regular file");
    if (found.size > inputBytesMax) throw mediaLimitExceeded("bytes", String(found.size), String(inputBytesMax));
    const file = await open(input, "r");
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(imageHeadBytes), 0, imageHeadBytes, 0);
      const kind = imageKindOf(buffer.subarray(0, bytesRead));
      if (kind === undefined) throw mediaUnreadable("it is no JPEG, PNG, GIF, WebP or AVIF image");
      return kind;
    } finally {
      await file.close();
    }
  }

  private open(input: string, pages: number): Sharp {
    const { limits, failOn, sharp } = this.context;
    return sharp(input, { limitInputPixels: limits.pixelsMax, failOn, pages, sequentialRead: true });
  }

  private async make(input: string, metadata: Metadata, rendition: ImageRendition): Promise<ImageFile> {
    const { folder } = this.context;
    const isAnimated = rendition.isAnimated === true && (metadata.pages ?? 1) > 1;
    // Orientations 5 to 8 lie on their side (Exif 2.32, tag 274).
    const isTurned = !isAnimated && (metadata.orientation ?? 1) >= 5;
    const { width, height } = metadata;
    const upright = isTurned ? { widthPx: height, heightPx: width } : { widthPx: width, heightPx: height };
    const box = renditionBox(upright, rendition);
    const opened = this.open(input, isAnimated ? -1 : 1);
    const image = (isAnimated ? opened : opened.autoOrient())
      .resize({ width: box.widthPx, height: box.heightPx, fit: rendition.fit, withoutEnlargement: true })
      .toColourspace("srgb")
      .timeout({ seconds: this.secondsLeft() });
    const quality = rendition.quality ?? qualityDefault[rendition.format];
    const path = join(folder.path, `${rendition.name}.${rendition.format}`);
    const encoded = rendition.format === "webp" ? image.webp({ quality }) : image.avif({ quality, effort: avifEffort });
    const made = await this.attempt(() => encoded.toFile(path));
    return {
      name: rendition.name,
      path,
      contentType: `image/${rendition.format}`,
      sizeBytes: made.size,
      widthPx: made.width,
      heightPx: made.pageHeight ?? made.height,
    };
  }

  private secondsLeft(): number {
    const { deadline, clock, limits, signal } = this.context;
    signal?.throwIfAborted();
    const leftMs = deadline - clock.monotonic();
    if (leftMs <= 0) throw mediaTimeout("The image", limits.timeLimitMs);
    return Math.ceil(leftMs / 1_000);
  }

  private async attempt<Result>(work: () => Promise<Result>): Promise<Result> {
    try {
      return await work();
    } catch (error) {
      throw this.explained(error);
    }
  }

  /** sharp raises plain errors; only their words tell what happened. */
  private explained(error: unknown): RungsError {
    if (error instanceof RungsError) return error;
    const { limits } = this.context;
    const message = error instanceof Error ? error.message : String(error);
    if (/exceeds pixel limit/i.test(message))
      return mediaLimitExceeded("pixels", "by its header", String(limits.pixelsMax));
    if (/timeout: /i.test(message)) return mediaTimeout("The image", limits.timeLimitMs, error);
    if (/no space left|unable to write|write error|out of memory|unable to allocate|too many open files/i.test(message))
      return mediaFailed("The image could not be made on this machine", error);
    return mediaUnreadable("it is damaged or of an unknown kind", error);
  }
}

/** Ends the wait, not the work, at an abort or at the time limit; the limit counts from the turn. */
async function endingEarly<Result extends { remove(): Promise<void> }>(
  work: Promise<Result>,
  timeLimitMs: number,
  signal: AbortSignal | undefined,
  onTurn: (turn: () => void) => void,
): Promise<Result> {
  let timer: NodeJS.Timeout | undefined;
  let stop: ((reason: unknown) => void) | undefined;
  let isEnded = false;
  const early = new Promise<never>((_, reject) => {
    stop = (reason) => {
      isEnded = true;
      reject(reason);
    };
  });
  early.catch(() => {});
  const onAbort = () => stop?.(signal?.reason);
  signal?.addEventListener("abort", onAbort, { once: true });
  onTurn(() => {
    // libvips' own limit is in whole seconds: it gets the chance to be first.
    timer = setTimeout(() => stop?.(mediaTimeout("The image", timeLimitMs)), timeLimitMs + 1_000);
  });
  // Nobody will take what was finished after all.
  work.then((result) => (isEnded ? result.remove() : undefined)).catch(() => {});
  try {
    return await Promise.race([work, early]);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", onAbort);
  }
}

async function loadSharp({ threads = 1, cacheMegabytesMax = 16 }: SharpImagesOptions): Promise<SharpFactory> {
  const { default: sharp } = await import("sharp").catch((error: unknown) => {
    const message = "Images need the package sharp, which cannot be loaded. Install it: npm install sharp";
    throw new ConfigError("PACKAGE_MISSING", message, { cause: error });
  });
  sharp.concurrency(threads);
  sharp.cache({ memory: cacheMegabytesMax, files: 0, items: 50 });
  return sharp;
}
