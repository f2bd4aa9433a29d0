/**
 * What is made of an upload, in the background.
 *
 * received -> processing -> ready, or failed when the file itself is at fault. Without ffmpeg a video becomes waiting, and
 * its message is done: a schedule looks every while whether ffmpeg is there and has the waiting ones processed then. So
 * nothing runs out of tries for want of a program. A file that is ready is never processed again.
 */
import { createReadStream, createWriteStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { RungsError, type ServiceContext } from "rungs";
import { type Images, isPermanentMediaError, type MediaFile, type Videos } from "rungs/media";
import type { Delivery } from "rungs/queue";
import { userTag } from "../accounts/accounts.ts";
import type { UploadRendition } from "../domain/model.ts";
import type { Tables } from "../schema.ts";
import { uploadFailed, uploadReady } from "./media-events.ts";
import { mainRendition, originalKey, pictureRenditions, renditionKey } from "./upload-rules.ts";
import { finishUpload, moveUpload, setAvatar, uploadById } from "./upload-statements.ts";
import { tellOwner, type UploadRow } from "./uploads.ts";

type Context = ServiceContext<Tables>;
type Work = Delivery<{ readonly ownerId: string; readonly uploadId: string; readonly purpose: string }>;

/** A file that was made, and the name it gets in storage. */
type Made = Pick<MediaFile, "path" | "contentType" | "sizeBytes" | "widthPx" | "heightPx"> & {
  readonly name: string;
  readonly durationMs?: number;
};

/** Makes files of a local one and gives them to `keep`; tells how far it is, 0 to 1. */
type Make = (
  path: string,
  steps: { readonly keep: (made: Made) => Promise<void>; readonly progress: (share: number) => void },
) => Promise<void>;

const renditionBytesMax = 2_000_000_000;
/** What may be processed: what failed, when an operator has it tried again. */
const unfinished = ["received", "processing", "waiting", "failed"] as const;
/** Progress is told at most so often. */
const progressEveryMs = 1_000;

/** Makes the renditions of a picture. */
export function processPicture(delivery: Work, context: Context, images: Images, triesMax: number): Promise<void> {
  const purpose = delivery.payload.purpose === "avatar" ? "avatar" : "image";
  return processUpload(delivery, context, triesMax, async (path, { keep, progress }) => {
    const specifications = pictureRenditions[purpose];
    // One call a rendition: each gets its own time, and the picture is at hand as soon as the first is made.
    for (const [index, specification] of specifications.entries()) {
      const output = await images.render(path, [specification], { signal: delivery.signal });
      try {
        for (const file of output.files) {
          const name = `${specification.name.replace(/-(?:webp|avif)$/, "")}.${specification.format}`;
          await keep({ ...file, name });
        }
      } finally {
        await output.remove();
      }
      progress((index + 1) / specifications.length);
    }
  });
}

/** Makes poster and rendition of a video. */
export function processVideo(delivery: Work, context: Context, videos: Videos, triesMax: number): Promise<void> {
  const { signal } = delivery;
  return processUpload(delivery, context, triesMax, async (path, { keep, progress }) => {
    const poster = await videos.makePoster(path, { format: "webp", signal });
    try {
      await keep({ ...poster.files[0], name: "poster.webp" });
    } finally {
      await poster.remove();
    }
    const rendition = await videos.makeRendition(path, { signal, onProgress: progress });
    try {
      await keep({ ...rendition.files[0], name: "video.mp4" });
    } finally {
      await rendition.remove();
    }
  });
}

async function processUpload(delivery: Work, context: Context, triesMax: number, make: Make): Promise<void> {
  const { db, clock, storage } = context;
  const { ownerId, uploadId } = delivery.payload;
  const [known] = await db.for(ownerId).run(uploadById, { ownerId, uploadId });
  if (known === undefined || known.state === "ready") return;
  const row = await move(delivery, context, unfinished, { state: "processing", progress: 0, message: null });
  if (row === undefined) return;
  const folder = await mkdtemp(join(tmpdir(), "conduit-upload-"));
  const kept: UploadRendition[] = [];
  try {
    const path = join(folder, "original");
    if (!(await download(context, row, path, delivery.signal))) return await fail(delivery, context, "is gone");
    const told = progressTeller(delivery, context);
    await make(path, {
      progress: told.progress,
      keep: async ({ name, contentType, sizeBytes, widthPx, heightPx, durationMs, ...file }) => {
        const options = { contentType, sizeBytesMax: renditionBytesMax, signal: delivery.signal };
        const key = renditionKey({ ownerId, uploadId, isPrivate: row.is_private }, name);
        await storage.put(key, createReadStream(file.path), options);
        const length = durationMs === undefined ? {} : { durationMs };
        kept.push({ name, contentType, sizeBytes, widthPx, heightPx, ...length });
      },
    });
    await told.done();
  } catch (error) {
    if (delivery.signal.aborted) throw error;
    return await explain(delivery, context, error, triesMax);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  await finish(delivery, context, { kept, isPrivate: row.is_private, now: new Date(clock.now()) });
}

/** Makes the result known, once. The original has served; what cannot be removed now, the sweep of orphans finds. */
async function finish(
  delivery: Work,
  context: Context,
  {
    kept,
    isPrivate,
    now,
  }: { readonly kept: readonly UploadRendition[]; readonly isPrivate: boolean; readonly now: Date },
): Promise<void> {
  const { db, storage, log } = context;
  const { ownerId, uploadId } = delivery.payload;
  const sizeBytes = kept.reduce((sum, rendition) => sum + rendition.sizeBytes, 0);
  const row = await delivery.once(db.for(ownerId), async (tx): Promise<UploadRow | undefined> => {
    const values = { ownerId, uploadId, sizeBytes, now, renditions: JSON.stringify(kept) };
    const [ready] = await tx.run(finishUpload, values);
    if (ready === undefined) return undefined;
    const { purpose } = ready;
    const main = mainRendition(purpose, kept);
    if (purpose === "avatar" && main !== undefined) {
      const image = `/${renditionKey({ ownerId, uploadId, isPrivate }, main.name)}`;
      const set = await tx.run(setAvatar, { ownerId, uploadId, image, now });
      if (set.length > 0) tx.invalidate(userTag(ownerId));
    }
    tx.publish(uploadReady, { ownerId, uploadId, purpose }, { key: ownerId });
    return ready;
  });
  if (row !== undefined) await tellOwner(context, row);
  const [left] = row === undefined ? await db.for(ownerId).run(uploadById, { ownerId, uploadId }) : [row];
  const removable =
    left === undefined ? kept.map(({ name }) => renditionKey({ ownerId, uploadId, isPrivate }, name)) : [];
  // Deleted while it was processed: then what was made goes as well.
  for (const key of [...removable, originalKey(ownerId, uploadId)]) {
    await storage.remove(key).catch((error: unknown) => log.warn({ error, key }, "an object could not be removed yet"));
  }
}

/** What an error means for the upload; raises it when another try may help. */
async function explain(delivery: Work, context: Context, error: unknown, triesMax: number): Promise<void> {
  if (isPermanentMediaError(error)) return fail(delivery, context, kindly(error as RungsError));
  if (error instanceof RungsError && error.code === "MEDIA_TOOL_MISSING") {
    const state = { state: "waiting", progress: 0, message: error.message } as const;
    return void (await move(delivery, context, ["processing"], state));
  }
  if (delivery.attempt >= triesMax) {
    await fail(delivery, context, "could not be processed here; please try again later", "given up");
  }
  throw error;
}

/** Ends an upload for good. Its original goes too. */
async function fail(delivery: Work, context: Context, message: string, step = "failed"): Promise<void> {
  const { db, clock, storage } = context;
  const { ownerId, uploadId, purpose } = delivery.payload;
  const now = new Date(clock.now());
  const values = { ownerId, uploadId, from: ["processing"], state: "failed", progress: 0, message, now };
  const row = await delivery.once(
    db.for(ownerId),
    async (tx): Promise<UploadRow | undefined> => {
      const [failed] = await tx.run(moveUpload, values);
      if (failed !== undefined) tx.publish(uploadFailed, { ownerId, uploadId, purpose }, { key: ownerId });
      return failed;
    },
    step,
  );
  if (row !== undefined) await tellOwner(context, row);
  // A later try by an operator may still want it.
  if (step === "failed") await storage.remove(originalKey(ownerId, uploadId));
}

function kindly(error: RungsError): string {
  return error.code === "MEDIA_LIMIT_EXCEEDED"
    ? error.message.replace("The file exceeds", "exceeds").replace(/\.$/, "")
    : "cannot be read: it is damaged, or of a kind that is not supported";
}

async function move(
  { payload: { ownerId, uploadId } }: Work,
  context: Context,
  from: readonly UploadRow["state"][],
  change: { readonly state: UploadRow["state"]; readonly progress: number; readonly message: string | null },
): Promise<UploadRow | undefined> {
  const { db, clock } = context;
  const [row] = await db
    .for(ownerId)
    .run(moveUpload, { ownerId, uploadId, from, ...change, now: new Date(clock.now()) });
  if (row !== undefined) await tellOwner(context, row);
  return row;
}

/** Brings the original to a local file; false when there is none. */
async function download(
  { storage }: Context,
  { owner_id: ownerId, upload_id: uploadId }: UploadRow,
  path: string,
  signal: AbortSignal,
): Promise<boolean> {
  const opened = await storage.open(originalKey(ownerId, uploadId), { signal });
  if (opened === undefined) return false;
  await pipeline(opened.body, createWriteStream(path, { flags: "wx" }), { signal });
  return true;
}

/** Writes progress down and tells it, not too often and one after the other. Lost progress harms nothing. */
function progressTeller(delivery: Work, context: Context) {
  const { clock, log } = context;
  let toldAt = clock.monotonic();
  let telling: Promise<unknown> = Promise.resolve();
  let isTelling = false;
  return {
    progress(share: number): void {
      if (isTelling || share >= 1 || clock.monotonic() - toldAt < progressEveryMs) return;
      toldAt = clock.monotonic();
      isTelling = true;
      const progress = Math.floor(share * 100);
      telling = move(delivery, context, ["processing"], { state: "processing", progress, message: null })
        .catch((error: unknown) => log.debug({ error }, "progress could not be told"))
        .finally(() => {
          isTelling = false;
        });
    },
    done: () => telling,
  };
}
