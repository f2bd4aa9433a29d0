/**
 * Videos: the port, and the policy of what is let in and what comes out.
 *
 * Only containers that hold their own data are read. Playlists, concatenations, manifests and session descriptions name
 * other files or addresses, which a reader would open: they are refused by content, whatever their name.
 */
import { z } from "zod";
import { ConfigError } from "../kernel/errors.ts";
import { type MediaFile, type MediaOutput, mediaLimitExceeded, mediaUnreadable } from "./media.ts";

/** What a video's headers say; all of it is the uploader's claim. */
export interface VideoInfo {
  /** Undefined when the file does not say, as browsers' recordings do not. */
  readonly durationMs: number | undefined;
  /** As shown: turned upright, with square pixels. */
  readonly widthPx: number;
  /** As shown: turned upright, with square pixels. */
  readonly heightPx: number;
  /** Frames a second on average; undefined when unknown. */
  readonly frameRate: number | undefined;
  /** The demuxer's names, e.g. "mov,mp4,m4a,3gp,3g2,mj2". */
  readonly container: string;
  /** E.g. "h264". */
  readonly videoCodec: string;
  /** E.g. "aac"; undefined for a silent video. */
  readonly audioCodec: string | undefined;
  /** Number of the stream shown; covers do not count. */
  readonly videoStream: number;
  readonly audioStream: number | undefined;
}

/** A video that was made: MP4 with H.264 and AAC, playable before it is loaded whole. */
export interface VideoFile extends MediaFile {
  readonly durationMs: number;
}

/** What an untrusted video may be and cost. */
export interface VideoLimits {
  /** Default 2 GiB. */
  readonly inputBytesMax: number;
  /** Default 15 minutes; also of files that lie about it. */
  readonly durationMsMax: number;
  /** Width x height; default 4,096 x 2,304. */
  readonly pixelsMax: number;
  /** Streams of all kinds; default 8. */
  readonly streamsMax: number;
  /** Size of what is made; default 1 GiB. */
  readonly outputBytesMax: number;
  /** Address space of the program; default 2 GiB. On macOS it is not limited. */
  readonly memoryBytesMax: number;
  /** Processor time of one run of ffmpeg, over all its threads; default 45 minutes. */
  readonly cpuMsMax: number;
  /** Time of one run of ffmpeg; default 30 minutes. A rendition is one run, a poster at most two. */
  readonly timeLimitMs: number;
  /** Time of one run of ffprobe; default 20,000 ms. A rendition probes before and after. */
  readonly probeTimeLimitMs: number;
}

/** Settings of {@link Videos.makePoster}. */
export interface PosterOptions {
  readonly format: "webp" | "jpeg";
  /** Box it is kept within, never enlarged; default 1,280 x 720. */
  readonly widthPxMax?: number;
  readonly heightPxMax?: number;
  /** Moment shown; default a tenth of the video, at most 3,000 ms. Past the end: the first frame. */
  readonly atMs?: number;
  readonly signal?: AbortSignal;
}

/** Settings of {@link Videos.makeRendition}. */
export interface VideoRenditionOptions {
  /** Box it is kept within, never enlarged; even numbers; default 1,280 x 720. */
  readonly widthPxMax?: number;
  readonly heightPxMax?: number;
  /** Ceiling of the picture's rate; default 2,500 kbit/s. */
  readonly videoKbitsMax?: number;
  /** Frames a second; default 30. */
  readonly frameRateMax?: number;
  /** Hears how much is done, 0 to 1, ascending, about twice a second; only 0 and 1 when the duration is unknown. */
  readonly onProgress?: (share: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Works on untrusted local files. On failure or abort nothing is left behind.
 *
 * All raise `MEDIA_UNREADABLE` and `MEDIA_LIMIT_EXCEEDED` (permanent), `MEDIA_TIMEOUT`, `MEDIA_FAILED`, `OVERLOADED` and
 * `MEDIA_TOOL_MISSING` (try again; the last one's message says what to install), the signal's reason, and the system's
 * error when there is no such file.
 */
export interface Videos {
  probe(inputPath: string, options?: { readonly signal?: AbortSignal }): Promise<VideoInfo>;
  /** Makes one still picture. Raises `CONFIG_INVALID` for impossible options. */
  makePoster(inputPath: string, options: PosterOptions): Promise<MediaOutput<readonly [MediaFile]>>;
  /** Makes a streamable MP4 without metadata. Raises `CONFIG_INVALID` for impossible options. */
  makeRendition(inputPath: string, options?: VideoRenditionOptions): Promise<MediaOutput<readonly [VideoFile]>>;
}

/** The limits of {@link VideoLimits} where none are set. */
export const videoLimitsDefault: VideoLimits = {
  inputBytesMax: 2 * 1024 ** 3,
  durationMsMax: 15 * 60_000,
  pixelsMax: 4_096 * 2_304,
  streamsMax: 8,
  outputBytesMax: 1024 ** 3,
  memoryBytesMax: 2 * 1024 ** 3,
  cpuMsMax: 45 * 60_000,
  timeLimitMs: 30 * 60_000,
  probeTimeLimitMs: 20_000,
};

const probeSchema = z.object({
  format: z.object({ format_name: z.string(), duration: z.string().optional(), nb_streams: z.number() }),
  streams: z.array(
    z.object({
      index: z.number(),
      codec_type: z.string().optional(),
      codec_name: z.string().optional(),
      width: z.number().optional(),
      height: z.number().optional(),
      sample_aspect_ratio: z.string().optional(),
      avg_frame_rate: z.string().optional(),
      disposition: z.object({ attached_pic: z.number().optional() }).optional(),
      side_data_list: z.array(z.object({ rotation: z.number().optional() })).optional(),
    }),
  ),
});

/** Reads ffprobe's JSON and judges it. Raises `MEDIA_UNREADABLE` or `MEDIA_LIMIT_EXCEEDED`. */
export function readProbe(json: string, limits: VideoLimits): VideoInfo {
  const { format, streams } = parseProbe(json);
  if (format.nb_streams > limits.streamsMax)
    throw mediaLimitExceeded("streams", String(format.nb_streams), String(limits.streamsMax));
  const video = streams.find((each) => each.codec_type === "video" && each.disposition?.attached_pic !== 1);
  if (video?.codec_name === undefined) throw mediaUnreadable("it holds no video of a known kind");
  const { width = 0, height = 0 } = video;
  if (width <= 0 || height <= 0) throw mediaUnreadable("its video has no dimensions");
  if (width * height > limits.pixelsMax)
    throw mediaLimitExceeded("pixels", `${width} x ${height}`, String(limits.pixelsMax));
  const durationMs = positive(Number(format.duration) * 1_000);
  if (durationMs !== undefined && durationMs > limits.durationMsMax)
    throw mediaLimitExceeded("playing time", `${Math.round(durationMs)} ms`, `${limits.durationMsMax} ms`);
  const shownWidth = Math.max(1, Math.round(width * (ratio(video.sample_aspect_ratio, ":") ?? 1)));
  const rotation = video.side_data_list?.find((each) => each.rotation !== undefined)?.rotation ?? 0;
  const isTurned = Math.abs(rotation) % 180 === 90;
  const audio = streams.find((each) => each.codec_type === "audio" && each.codec_name !== undefined);
  return {
    durationMs,
    widthPx: isTurned ? height : shownWidth,
    heightPx: isTurned ? shownWidth : height,
    frameRate: ratio(video.avg_frame_rate, "/"),
    container: format.format_name,
    videoCodec: video.codec_name,
    audioCodec: audio?.codec_name,
    videoStream: video.index,
    audioStream: audio?.index,
  };
}

/** Largest even size of the same shape within the box, never enlarged; H.264 in 4:2:0 knows no odd sides. */
export function videoSize(
  shown: { readonly widthPx: number; readonly heightPx: number },
  box: { readonly widthPxMax: number; readonly heightPxMax: number },
): { readonly widthPx: number; readonly heightPx: number } {
  const scale = Math.min(1, box.widthPxMax / shown.widthPx, box.heightPxMax / shown.heightPx);
  const even = (px: number) => Math.max(2, 2 * Math.floor((px * scale + 1e-6) / 2));
  return { widthPx: even(shown.widthPx), heightPx: even(shown.heightPx) };
}

/** Raises `CONFIG_INVALID` for an option that is no whole number within its bounds. */
export function checkVideoOption(name: string, value: number, min: number, max: number): void {
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new ConfigError("CONFIG_INVALID", `${name} is ${value}; it is a whole number from ${min} to ${max}.`);
}

/** Collects ffmpeg's `-progress` lines; gives the time written so far in ms whenever a report says it. */
export function progressReader(onTime: (writtenMs: number) => void): (chunk: string) => void {
  let rest = "";
  return (chunk) => {
    const lines = (rest + chunk).split("\n");
    // A line is some 30 characters; the bound is for a program that has lost its mind.
    rest = (lines.pop() ?? "").slice(-256);
    for (const line of lines) {
      // `out_time_ms` holds microseconds too, for history's sake; `out_time_us` says what it means.
      const microseconds = /^out_time_us=(\d+)/.exec(line)?.[1];
      if (microseconds !== undefined) onTime(Number(microseconds) / 1_000);
    }
  };
}

function parseProbe(json: string): z.infer<typeof probeSchema> {
  try {
    return probeSchema.parse(JSON.parse(json));
  } catch (cause) {
    throw mediaUnreadable("its headers make no sense", cause);
  }
}

function ratio(text: string | undefined, separator: string): number | undefined {
  const [above, below] = (text ?? "").split(separator).map(Number);
  return positive((above ?? Number.NaN) / (below ?? Number.NaN));
}

function positive(value: number): number | undefined {
  return Number.isFinite(value) && value > 0 ? value : undefined;
}
