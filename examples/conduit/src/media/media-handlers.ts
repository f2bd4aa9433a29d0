/** What is done about uploads in the background. */
import type { ServiceContext } from "rungs";
import type { Images, Videos } from "rungs/media";
import { ffmpegVideos, findFfmpeg } from "rungs/media/ffmpeg";
import { sharpImages } from "rungs/media/sharp";
import { every, type Handler, handle, publication, type Schedule } from "rungs/queue";
import { sweepOrphans } from "rungs/storage";
import type { Tables } from "../schema.ts";
import { orphansDue, pictureReceived, uploadRemoved, videoReceived, videosDue } from "./media-events.ts";
import { processPicture, processVideo } from "./processing.ts";
import {
  accepted,
  mediaTag,
  originalKey,
  originalPrefix,
  partsOfKey,
  pictureTimeLimitMs,
  privatePrefix,
  renditionKey,
  renditionPrefix,
  videoLimits,
  videoTimeLimitMs,
} from "./upload-rules.ts";
import { failAbandoned, moveUpload, uploadsThatExist } from "./upload-statements.ts";
import { tellOwner, type UploadRow } from "./uploads.ts";

type Context = ServiceContext<Tables>;

/** How soon a video is processed after ffmpeg was installed. */
const lookForToolsEveryMs = 30_000;
/** Videos taken up again at one look; the rest at the next. */
const takenUpMax = 50;
/** Longer than an upload may take to arrive and to be processed, tries included. */
const orphanAgeMs = 24 * 60 * 60_000;
const orphanSweepEveryMs = 6 * 60 * 60_000;
const renditionsMax = 100;
/** Work that is under way writes its progress down by far more often. */
const abandonedMs = videoTimeLimitMs + 15 * 60_000;
const tries = { attemptsMax: 8, backoff: { firstMs: 2_000, maxMs: 300_000 } };

/** One driver a process and setting: each bounds what is at work at once. */
const drivers = new WeakMap<Context["environment"], { readonly images: Images; readonly videos: Videos }>();

function driversOf({ environment }: Context): { readonly images: Images; readonly videos: Videos } {
  const known = drivers.get(environment);
  if (known !== undefined) return known;
  const made = {
    images: sharpImages({ limits: { inputBytesMax: accepted.image.fileBytesMax } }),
    videos: ffmpegVideos({ limits: videoLimits, find: () => findFfmpeg({ environment }) }),
  };
  drivers.set(environment, made);
  return made;
}

export const mediaHandlers: Readonly<Record<string, Handler<Context>>> = {
  picture: handle(
    pictureReceived,
    (delivery, context: Context) => processPicture(delivery, context, driversOf(context).images, tries.attemptsMax),
    { ...tries, concurrency: 2, timeLimitMs: pictureTimeLimitMs },
  ),

  video: handle(
    videoReceived,
    (delivery, context: Context) => processVideo(delivery, context, driversOf(context).videos, tries.attemptsMax),
    { ...tries, concurrency: 1, timeLimitMs: videoTimeLimitMs },
  ),

  resume: handle(videosDue, async (_delivery, context: Context) => {
    await takeUpWaiting(context);
    await giveUpAbandoned(context);
  }),

  remove: handle(uploadRemoved, async (delivery, { db, storage }: Context) => {
    const { ownerId, uploadId } = delivery.payload;
    for (const isPrivate of [false, true]) {
      const prefix = renditionKey({ ownerId, uploadId, isPrivate }, "");
      for (const { key } of await storage.list({ prefix, limit: renditionsMax })) await storage.remove(key);
    }
    await storage.remove(originalKey(ownerId, uploadId));
    // Only now: a CDN must not fetch them once more.
    await delivery.once(db.for(ownerId), async (tx) => tx.invalidate(mediaTag(uploadId)));
  }),

  sweep: handle(
    orphansDue,
    async ({ payload, signal, ...delivery }, context: Context) => {
      const { db, storage, clock, log } = context;
      const { prefix, after } = payload;
      const referred = (keys: readonly string[]) => referredKeys(context, keys);
      const sweep = { store: storage, prefix, after, clock, signal, referred, olderThanMs: orphanAgeMs };
      const { removed, seen, next } = await sweepOrphans(sweep);
      if (removed > 0) log.info({ removed, seen, prefix }, "objects without an upload were removed");
      if (next === undefined) return;
      await delivery.once(db.home, async (tx) => tx.publish(orphansDue, { prefix, after: next }));
    },
    { concurrency: 1, attemptsMax: 3, timeLimitMs: 10 * 60_000 },
  ),
};

export const mediaSchedules: Readonly<Record<string, Schedule>> = {
  resume: every({ event: videosDue, payload: {}, everyMs: lookForToolsEveryMs }),
  sweepOriginals: every({ event: orphansDue, payload: { prefix: originalPrefix }, everyMs: orphanSweepEveryMs }),
  sweepRenditions: every({ event: orphansDue, payload: { prefix: renditionPrefix }, everyMs: orphanSweepEveryMs }),
  sweepPrivate: every({ event: orphansDue, payload: { prefix: privatePrefix }, everyMs: orphanSweepEveryMs }),
};

/** Has the videos that wait for ffmpeg processed if it is there now. */
export async function takeUpWaiting(context: Context): Promise<void> {
  const { db, environment, clock } = context;
  const isThere = await findFfmpeg({ environment }).then(
    () => true,
    () => false,
  );
  if (!isThere) return;
  // Those of a shard that is down are found when it is back.
  const { rows: waiting } = await db.everywhere<Pick<UploadRow, "owner_id" | "upload_id">>(
    (shard, window) =>
      shard
        .selectFrom("uploads")
        .select(["owner_id", "upload_id"])
        .where("state", "=", "waiting")
        .orderBy("upload_id")
        .limit(window.limit)
        .offset(window.offset)
        .execute(),
    { orderBy: [["upload_id", "asc"]], limit: takenUpMax, onFailure: "partial" },
  );
  for (const { owner_id: ownerId, upload_id: uploadId } of waiting) {
    const now = new Date(clock.now());
    const values = { ownerId, uploadId, from: ["waiting"], state: "received", progress: 0, message: null, now };
    const message = publication(videoReceived, { ownerId, uploadId, purpose: "video" });
    const [row] = await db.for(ownerId).run(moveUpload, values, { publish: [message] });
    if (row !== undefined) await tellOwner(context, row);
  }
}

/**
 * Ends uploads that nothing works on any more: what killed its worker at every try left no word. An operator can still have the
 * dead letter tried again.
 */
export async function giveUpAbandoned(context: Context): Promise<void> {
  const { db, clock } = context;
  const now = new Date(clock.now());
  const before = new Date(clock.now() - abandonedMs);
  const message = "could not be processed here; please try again later";
  const { rows: ended } = await db.everywhere<UploadRow>(
    (shard) => shard.run(failAbandoned, { before, message, now }),
    { onFailure: "partial" },
  );
  for (const row of ended) await tellOwner(context, row);
}

/** Those keys that an upload still needs: its renditions, and its original until it is processed. */
export async function referredKeys({ db }: Pick<Context, "db">, keys: readonly string[]): Promise<ReadonlySet<string>> {
  const parts = keys.flatMap((key) => {
    const found = partsOfKey(key);
    return found === undefined ? [] : [{ key, ...found }];
  });
  const uploadIds = [...new Set(parts.map(({ uploadId }) => uploadId))];
  const ownerIds = [...new Set(parts.map(({ ownerId }) => ownerId))];
  const rows = await db.byKey(ownerIds, (shard, owners) =>
    shard.run(uploadsThatExist, { ownerIds: owners, uploadIds }),
  );
  const byId = new Map(rows.map((row) => [`${row.owner_id}/${row.upload_id}`, row]));
  const needed = parts.filter(({ ownerId, uploadId, isPrivate, name }) => {
    const row = byId.get(`${ownerId}/${uploadId}`);
    if (row === undefined) return false;
    if (row.state !== "ready") return true;
    return row.is_private === isPrivate && row.renditions.some((rendition) => rendition.name === name);
  });
  // Keys of another form are not ours to remove.
  const foreign = keys.filter((key) => partsOfKey(key) === undefined);
  return new Set([...needed.map(({ key }) => key), ...foreign]);
}
