/** The media tier: pictures and videos from untrusted uploads, on local files. Drivers: `rungs/media/sharp`, `rungs/media/ffmpeg`. */
export { type ImageFile, type ImageLimits, type ImageRendition, type Images, imageLimitsDefault } from "./image.ts";
export { isPermanentMediaError, type MediaFile, type MediaOutput } from "./media.ts";
export {
  type PosterOptions,
  type VideoFile,
  type VideoInfo,
  type VideoLimits,
  type VideoRenditionOptions,
  type Videos,
  videoLimitsDefault,
} from "./video.ts";
