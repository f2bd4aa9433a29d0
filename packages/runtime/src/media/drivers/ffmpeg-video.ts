/** Videos by ffmpeg, as a child process under limits: `limited-process.ts` bounds it, `ffmpeg-command.ts` bounds its input. */
import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { type MediaFile, mediaLimitExceeded, mediaUnreadable } from "../media.ts";
import {
  checkVideoOption,
  type PosterOptions,
  progressReader,
  type VideoFile,
  type VideoInfo,
  type VideoLimits,
  type VideoRenditionOptions,
  type Videos,
  videoLimitsDefault,
  videoSize,
} from "../video.ts";
import { createWorkFolders, type WorkFolder } from "../work-folder.ts";
import { createWorkGate } from "../work-gate.ts";
import { type FfmpegContext, runFfmpeg, runFfprobe, words } from "./ffmpeg-command.ts";
import { type Ffmpeg, findFfmpeg } from "./find-ffmpeg.ts";
import { findHelpers, type Helpers } from "./limited-process.ts";

export { type Ffmpeg, type FindFfmpegOptions, findFfmpeg } from "./find-ffmpeg.ts";

/** Settings of {@link ffmpegVideos}. */
export interface FfmpegVideosOptions {
  /** Those left out keep their defaults. */
  readonly limits?: Partial<VideoLimits>;
  /** Renditions and posters at work at once; default 1. Probes have two places of their own. */
  readonly concurrencyMax?: number;
  /** Calls that may wait, of each kind; default 64. */
  readonly queueMax?: number;
  /** Threads of the decoder and of the encoder; default 2. */
  readonly threads?: number;
  /** Takes the network away from ffmpeg where the system permits it (Linux, `unshare`); default true. An extra. */
  readonly withoutNetwork?: boolean;
  /** Finds the programs, at each call; default {@link findFfmpeg}. */
  readonly find?: () => Promise<Ffmpeg>;
  /** Parent of the temporary folders; default the system's. */
  readonly directory?: string;
  readonly clock?: Clock;
}

const boxDefault = { widthPxMax: 1_280, heightPxMax: 720 };
const posterAtMsMax = 3_000;
/** Container times are rounded to frames and to sound packets: so much longer than allowed is not longer. */
const durationSlackMs = 1_000;

/** The driver. ffmpeg and ffprobe are looked for at each call. */
export function ffmpegVideos(options: FfmpegVideosOptions = {}): Videos {
  return new FfmpegVideos(options);
}

class FfmpegVideos implements Videos {
  private readonly options: FfmpegVideosOptions;
  private readonly limits: VideoLimits;
  private readonly folders;
  private readonly gate;
  private readonly probeGate;
  private helpers: Promise<Helpers> | undefined;

  constructor(options: FfmpegVideosOptions) {
    const { concurrencyMax = 1, queueMax = 64 } = options;
    this.options = options;
    this.limits = { ...videoLimitsDefault, ...options.limits };
    this.folders = createWorkFolders(options.clock ?? systemClock, options.directory);
    this.gate = createWorkGate({ name: "Videos", concurrencyMax, queueMax });
    this.probeGate = createWorkGate({ name: "Probes of videos", concurrencyMax: 2, queueMax });
  }

  probe(inputPath: string, { signal }: { readonly signal?: AbortSignal } = {}): Promise<VideoInfo> {
    const work = () => this.inFolder(async (folder) => (await this.open(inputPath, folder, signal)).info);
    return this.probeGate.run(async () => {
      const { result, remove } = await work();
      await remove();
      return result;
    }, signal);
  }

  async makePoster(inputPath: string, options: PosterOptions) {
    const { widthPxMax, heightPxMax } = { ...boxDefault, ...options };
    checkVideoOption("widthPxMax", widthPxMax, 2, 16_382);
    checkVideoOption("heightPxMax", heightPxMax, 2, 16_382);
    if (options.atMs !== undefined) checkVideoOption("atMs", options.atMs, 0, Number.MAX_SAFE_INTEGER);
    const { result, remove } = await this.gate.run(
      () =>
        this.inFolder(async (folder) => {
          const job = await this.open(inputPath, folder, options.signal);
          return await job.makePoster({ ...options, widthPxMax, heightPxMax });
        }),
      options.signal,
    );
    return { files: [result] as const, remove };
  }

  async makeRendition(inputPath: string, options: VideoRenditionOptions = {}) {
    const whole = { ...boxDefault, videoKbitsMax: 2_500, frameRateMax: 30, ...options };
    checkVideoOption("widthPxMax", whole.widthPxMax, 2, 7_680);
    checkVideoOption("heightPxMax", whole.heightPxMax, 2, 7_680);
    checkVideoOption("videoKbitsMax", whole.videoKbitsMax, 50, 200_000);
    checkVideoOption("frameRateMax", whole.frameRateMax, 1, 240);
    const { result, remove } = await this.gate.run(
      () => this.inFolder(async (folder) => (await this.open(inputPath, folder, options.signal)).makeRendition(whole)),
      options.signal,
    );
    return { files: [result] as const, remove };
  }

  /** Judges the file and gives what can be done with it. */
  private async open(inputPath: string, folder: WorkFolder, signal: AbortSignal | undefined): Promise<VideoJob> {
    const { find = findFfmpeg, threads = 2, withoutNetwork = true } = this.options;
    const tools = await find();
    this.helpers ??= findHelpers({ withoutNetwork });
    const helpers = await this.helpers;
    const path = resolve(inputPath);
    const found = await stat(path);
    if (!found.isFile()) throw mediaUnreadable("it is not a regular file");
    if (found.size > this.limits.inputBytesMax)
      throw mediaLimitExceeded("bytes", String(found.size), String(this.limits.inputBytesMax));
    const context = { path, folder: folder.path, tools, helpers, limits: this.limits, threads, signal };
    return new VideoJob(context, await runFfprobe(context, path));
  }

  private async inFolder<Result>(work: (folder: WorkFolder) => Promise<Result>) {
    const folder = await this.folders.make();
    try {
      return { result: await work(folder), remove: () => folder.remove() };
    } catch (error) {
      await folder.remove();
      throw error;
    }
  }
}

type RenditionRequest = VideoRenditionOptions & Required<Omit<VideoRenditionOptions, "onProgress" | "signal">>;

/** A file that was let in, and what is made of it. */
class VideoJob {
  readonly info: VideoInfo;
  private readonly context: FfmpegContext;

  constructor(context: FfmpegContext, info: VideoInfo) {
    this.context = context;
    this.info = info;
  }

  async makePoster(options: PosterOptions & typeof boxDefault): Promise<MediaFile> {
    const { info } = this;
    const size = videoSize(info, options);
    const path = join(this.context.folder, `poster.${options.format}`);
    const [pixels, encoder] =
      options.format === "webp" ? ["yuv420p", "libwebp -quality 80"] : ["yuvj420p", "mjpeg -q:v 4"];
    const after = [
      ...words(`-map 0:${info.videoStream} -frames:v 1 -vf ${scaledTo(size)},format=${pixels} -c:v ${encoder}`),
      ...["-f", "image2pipe", `file:${path}`],
    ];
    const atMs = options.atMs ?? Math.min(posterAtMsMax, (info.durationMs ?? 0) / 10);
    // A moment past the last frame gives no picture, and no failure; the start has one.
    for (const momentMs of atMs > 0 ? [atMs, 0] : [0]) {
      await runFfmpeg(this.context, { before: words(`-ss ${seconds(momentMs)}`), after });
      const sizeBytes = await sizeOf(path);
      if (sizeBytes > 0) return { path, contentType: `image/${options.format}`, sizeBytes, ...size };
    }
    throw mediaUnreadable("it holds no picture that can be decoded");
  }

  async makeRendition(options: RenditionRequest): Promise<VideoFile> {
    const { info } = this;
    const { limits, threads, folder } = this.context;
    const { videoKbitsMax, frameRateMax } = options;
    const size = videoSize(info, options);
    const path = join(folder, "rendition.mp4");
    const onShare = ascending(options.onProgress);
    onShare(0);
    const readProgress = progressReader((writtenMs) => {
      if (info.durationMs !== undefined) onShare(Math.min(0.99, writtenMs / info.durationMs));
    });
    const after = [
      ...words(`-map 0:${info.videoStream} -vf ${scaledTo(size)},format=yuv420p -fpsmax ${frameRateMax}`),
      ...words(`-c:v libx264 -preset veryfast -profile:v high -crf 23 -threads ${threads}`),
      ...words(`-maxrate ${videoKbitsMax}k -bufsize ${2 * videoKbitsMax}k`),
      ...(info.audioStream === undefined ? [] : words(`-map 0:${info.audioStream} -c:a aac -b:a 128k -ac 2 -ar 48000`)),
      // One that says it is short and is not ends here, and is refused below.
      ...words(`-t ${seconds(limits.durationMsMax + 2 * durationSlackMs)} -max_muxing_queue_size 1024`),
      ...["-movflags", "+faststart", "-f", "mp4", `file:${path}`],
    ];
    await runFfmpeg(this.context, { after }, readProgress);
    const sizeBytes = await sizeOf(path);
    if (sizeBytes === 0) throw mediaUnreadable("it holds no picture that can be decoded");
    const unlimited = { ...limits, durationMsMax: Number.POSITIVE_INFINITY };
    const { durationMs = 0 } = await runFfprobe({ ...this.context, limits: unlimited }, path);
    if (durationMs > limits.durationMsMax + durationSlackMs)
      throw mediaLimitExceeded("playing time", `over ${limits.durationMsMax} ms`, `${limits.durationMsMax} ms`);
    onShare(1);
    return { path, contentType: "video/mp4", sizeBytes, ...size, durationMs };
  }
}

function scaledTo({ widthPx, heightPx }: { readonly widthPx: number; readonly heightPx: number }): string {
  return `scale=${widthPx}:${heightPx},setsar=1`;
}

/** Passes on only what is more than before. */
function ascending(listener: ((share: number) => void) | undefined): (share: number) => void {
  let last = -1;
  return (share) => {
    if (share <= last) return;
    last = share;
    listener?.(share);
  };
}

function seconds(ms: number): string {
  return (ms / 1_000).toFixed(3);
}

function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}
