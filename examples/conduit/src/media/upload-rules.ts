/** The rules of uploads: what is taken, what is made of it, how much of it a user may have, and where it lies. */
import type { ImageRendition, VideoLimits } from "rungs/media";
import type { UploadPurpose, UploadRendition } from "../domain/model.ts";

const megabyte = 1_000_000;
const minuteMs = 60_000;

const pictureKinds = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/avif"];
const videoKinds = ["video/mp4", "video/quicktime", "video/webm", "video/matroska", "video/x-matroska", "video/x-m4v"];

/** What an upload of each purpose may be and how long it may take to arrive. */
export const accepted: Readonly<
  Record<
    UploadPurpose,
    { readonly kinds: readonly string[]; readonly fileBytesMax: number; readonly timeMaxMs: number }
  >
> = {
  avatar: { kinds: pictureKinds, fileBytesMax: 10 * megabyte, timeMaxMs: 5 * minuteMs },
  image: { kinds: pictureKinds, fileBytesMax: 20 * megabyte, timeMaxMs: 10 * minuteMs },
  video: { kinds: videoKinds, fileBytesMax: 500 * megabyte, timeMaxMs: 30 * minuteMs },
};

/** Whether a text names a purpose. */
export function isPurpose(text: string | undefined): text is UploadPurpose {
  return text !== undefined && Object.hasOwn(accepted, text);
}

/** How much one user may have. */
export const perUser = {
  /** Uploads not processed yet. */
  unprocessedMax: 10,
  /** Bytes of all uploads together, with what is made of them. */
  bytesMax: 2_000 * megabyte,
  uploadsMax: 2_000,
} as const;

/** What is made of a picture: WebP for all, AVIF for browsers that take it. */
export const pictureRenditions: Readonly<Record<"avatar" | "image", readonly ImageRendition[]>> = {
  avatar: (["webp", "avif"] as const).flatMap((format) => [square("a256", 256, format), square("a96", 96, format)]),
  image: (["webp", "avif"] as const).flatMap((format) => [within("w1280", 1_280, format), within("w640", 640, format)]),
};

// The renditions of a call need names of their own; in storage the ending tells the formats apart.
function square(name: string, px: number, format: "webp" | "avif"): ImageRendition {
  return { name: `${name}-${format}`, widthPxMax: px, heightPxMax: px, fit: "cover", format };
}

function within(name: string, px: number, format: "webp" | "avif"): ImageRendition {
  return { name: `${name}-${format}`, widthPxMax: px, heightPxMax: 2 * px, fit: "inside", format };
}

/** Limits of video work; the bytes are those of {@link accepted}. */
export const videoLimits: Partial<VideoLimits> = {
  inputBytesMax: accepted.video.fileBytesMax,
  durationMsMax: 15 * minuteMs,
  timeLimitMs: 20 * minuteMs,
  cpuMsMax: 40 * minuteMs,
};

/** Longer than two runs for the poster, one for the rendition, and the ways to and from storage. */
export const videoTimeLimitMs = 90 * minuteMs;
export const pictureTimeLimitMs = 3 * minuteMs;

/** Where the file as it came is kept until it has been processed. It is never served. */
export function originalKey(ownerId: string, uploadId: string): string {
  return `${originalPrefix}${ownerId}/${uploadId}`;
}

/** Where what was made of it is kept; also its address, with a slash before it, which for a private one has to be signed. */
export function renditionKey(
  {
    ownerId,
    uploadId,
    isPrivate,
  }: { readonly ownerId: string; readonly uploadId: string; readonly isPrivate: boolean },
  name: string,
): string {
  return `${isPrivate ? privatePrefix : renditionPrefix}${ownerId}/${uploadId}/${name}`;
}

/** Cache tag of an upload's renditions. */
export const mediaTag = (uploadId: string) => `media:${uploadId}`;

export const originalPrefix = "originals/";
export const renditionPrefix = "media/";
export const privatePrefix = "private/";

const uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const originalPattern = new RegExp(`^${originalPrefix}(${uuid})/(${uuid})$`);
const renditionPattern = new RegExp(
  `^(?:${renditionPrefix}|${privatePrefix})(${uuid})/(${uuid})/([a-z0-9-]{1,64}\\.(?:webp|avif|mp4))$`,
);

/** An object's owner, upload and, for a rendition, its name; undefined for a key that is none of ours. */
export function partsOfKey(
  key: string,
): { ownerId: string; uploadId: string; isPrivate: boolean; name: string | undefined } | undefined {
  const [, ownerId, uploadId, name] = originalPattern.exec(key) ?? renditionPattern.exec(key) ?? [];
  if (ownerId === undefined || uploadId === undefined) return undefined;
  return { ownerId, uploadId, isPrivate: key.startsWith(privatePrefix), name };
}

/** Text as an id in lower case, the form in which keys hold it; undefined for what is no id. */
export function idOf(text: string): string | undefined {
  return new RegExp(`^${uuid}$`).test(text) ? text : undefined;
}

/** Names of the renditions that pages show first. */
export const mainNames: Readonly<Record<UploadPurpose, string>> = {
  avatar: "a256.webp",
  image: "w1280.webp",
  video: "video.mp4",
};

/** The rendition that pages show first; undefined when it was not made. */
export function mainRendition(
  purpose: UploadPurpose,
  renditions: readonly UploadRendition[],
): UploadRendition | undefined {
  return renditions.find(({ name }) => name === mainNames[purpose]);
}
