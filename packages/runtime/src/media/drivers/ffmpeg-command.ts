/**
 * Command lines of ffmpeg and ffprobe: what an input may be, how a run is bounded, and what its failure means.
 *
 * What the input cannot do, and why:
 * - be taken for an option or a protocol: it is always `file:` and an absolute path, one element of an argument list;
 * - name other files or addresses: `-protocol_whitelist file` leaves no network, and `-format_whitelist` only containers
 *   that hold their own data (ffmpeg picks the format by content, so a playlist called .mp4 is refused as one);
 * - reach rarely used decoders: `-codec_whitelist`.
 */
import { UnavailableError } from "../../kernel/errors.ts";
import { mediaFailed, mediaLimitExceeded, mediaTimeout, mediaUnreadable } from "../media.ts";
import { readProbe, type VideoInfo, type VideoLimits } from "../video.ts";
import type { Ffmpeg } from "./find-ffmpeg.ts";
import { type Helpers, type ProcessEnd, runLimited } from "./limited-process.ts";

/** What all runs of one call share. */
export interface FfmpegContext {
  /** Absolute path of the input. */
  readonly path: string;
  /** Folder of the call's own, for all that is written. */
  readonly folder: string;
  readonly tools: Ffmpeg;
  readonly helpers: Helpers;
  readonly limits: VideoLimits;
  readonly threads: number;
  readonly signal: AbortSignal | undefined;
}

/** Containers that hold their own data; by ffmpeg's names for what reads them. */
const formats = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg";
/** What cameras, telephones and browsers write; by ffmpeg's names for what decodes it. */
const decoders = [
  "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,libaom-av1,mpeg4,mpeg2video,mpeg1video,h263,mjpeg,theora,prores",
  "aac,mp3,mp3float,mp2,mp2float,opus,libopus,vorbis,libvorbis,flac,alac,ac3,eac3,amrnb,amrwb",
  "pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_f32le,pcm_u8,pcm_alaw,pcm_mulaw",
].join(",");
const shownByProbe = [
  "format=format_name,duration,nb_streams",
  "stream=index,codec_type,codec_name,width,height,sample_aspect_ratio,avg_frame_rate",
  "stream_disposition=attached_pic",
  "stream_side_data=rotation",
].join(":");
/** A probe sees larger pictures than are let in, so that it can say what was wrong: 8K beside the default of 4K. */
const probePixelsFactor = 4;
/** Some 300 bytes a stream. */
const probeBytesMax = 1024 * 1024;
/** Some 600 bytes a second, of which none are kept: more than a day. */
const progressBytesMax = 64 * 1024 * 1024;

/** Splits fixed options at their spaces; for paths, which may hold any character, use an element of their own. */
export function words(options: string): string[] {
  return options.split(" ");
}

/** One run of ffmpeg on the context's input; `before` and `after` stand on either side of it. */
export async function runFfmpeg(
  context: FfmpegContext,
  options: { readonly before?: readonly string[]; readonly after: readonly string[] },
  onOutput: (text: string) => void = () => {},
): Promise<void> {
  const { tools, path, limits, threads } = context;
  const args = [
    ...words(`-hide_banner -nostdin -loglevel error -nostats -y -filter_threads ${threads}`),
    ...words(`-progress pipe:1 -stats_period 0.5 -threads ${threads}`),
    ...(options.before ?? []),
    ...inputOptions(limits.pixelsMax),
    ...["-i", `file:${path}`],
    // No subtitles, data, chapters or metadata: those of a telephone say where it was filmed.
    ...words("-sn -dn -map_metadata -1 -map_chapters -1"),
    ...options.after,
  ];
  const { timeLimitMs } = limits;
  await run(context, { program: tools.ffmpegPath, args, timeLimitMs, saidBytesMax: progressBytesMax, onOutput });
}

/** One run of ffprobe, judged by the context's limits. */
export async function runFfprobe(context: FfmpegContext, path: string): Promise<VideoInfo> {
  const { tools, limits } = context;
  let json = "";
  const args = [
    ...words("-hide_banner -loglevel error -threads 1"),
    ...inputOptions(probePixelsFactor * limits.pixelsMax),
    ...["-show_entries", shownByProbe, "-of", "json", "-i", `file:${path}`],
  ];
  const onOutput = (text: string) => {
    json += text;
  };
  const timeLimitMs = limits.probeTimeLimitMs;
  await run(context, { program: tools.ffprobePath, args, timeLimitMs, saidBytesMax: probeBytesMax, onOutput });
  return readProbe(json, limits);
}

function inputOptions(pixelsMax: number): string[] {
  return [
    ...["-protocol_whitelist", "file", "-format_whitelist", formats, "-codec_whitelist", decoders],
    ...words(`-max_pixels ${pixelsMax} -probesize 10000000 -analyzeduration 10000000`),
  ];
}

interface Run {
  readonly program: string;
  readonly args: readonly string[];
  readonly timeLimitMs: number;
  readonly saidBytesMax: number;
  readonly onOutput: (text: string) => void;
}

async function run({ folder, helpers, limits, signal }: FfmpegContext, asked: Run): Promise<void> {
  const { program, args, timeLimitMs, saidBytesMax, onOutput } = asked;
  const { cpuMsMax, memoryBytesMax, outputBytesMax } = limits;
  const end = await runLimited({
    ...{ path: program, args, directory: folder, helpers, signal, onOutput },
    limits: { timeLimitMs, cpuMsMax, memoryBytesMax, fileBytesMax: outputBytesMax, outputBytesMax: saidBytesMax },
  }).catch((error: unknown) => {
    // Of all that is raised here only the system's own errors name a call.
    if (error instanceof Error && "syscall" in error) throw mediaFailed("ffmpeg cannot be started here", error);
    throw error;
  });
  if (end.reason !== "exited" || end.exitCode !== 0) throw explained(end, limits, timeLimitMs);
}

function explained({ reason, exitCode, complaint }: ProcessEnd, limits: VideoLimits, timeLimitMs: number): Error {
  // The file's own words may be among them: nothing that moves a terminal's cursor or forges a line of a log.
  const said = complaint.trim().replace(/[^\x20-\x7e]+/g, " ");
  const cause = new Error(`${exitCode === undefined ? "ended by a signal" : `exit code ${exitCode}`}: ${said}`);
  if (reason === "time-limit") return mediaTimeout("The video", timeLimitMs, cause);
  if (reason === "cpu-limit") return mediaLimitExceeded("processor time", "used up", `${limits.cpuMsMax} ms`);
  if (reason === "file-limit" || /file too large/i.test(complaint))
    return mediaLimitExceeded("the size of what is made", "reached", `${limits.outputBytesMax} bytes`);
  if (reason === "output-limit") return mediaLimitExceeded("what its headers say", "more", "1 MiB");
  if (reason === "killed") return mediaFailed("ffmpeg was killed, perhaps for want of memory", cause);
  if (/unknown encoder|unrecognized option|option \S+ not found|error setting option/i.test(complaint)) {
    const message =
      "This ffmpeg lacks what is needed: version 5 or later with libx264, aac and libwebp. Install a full one.";
    return new UnavailableError("MEDIA_TOOL_MISSING", message, { canRetry: true, cause });
  }
  if (/cannot allocate memory|malloc of size/i.test(complaint))
    return mediaLimitExceeded("memory", "used up", `${limits.memoryBytesMax} bytes of address space`);
  // 126 and 127 say that a program could not be started; the helpers name themselves; the rest is the system's words.
  const isOurTrouble =
    /no space left|too many open files|while loading shared libraries|cannot fork|^(nice|setpriv|unshare): /im;
  if (exitCode === 126 || exitCode === 127 || isOurTrouble.test(complaint))
    return mediaFailed("The video could not be made on this machine", cause);
  return mediaUnreadable("it is damaged or of an unknown kind", cause);
}
