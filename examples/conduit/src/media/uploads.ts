/** Uploads: received, listed, shown to their owner, deleted. What is made of them is in `processing.ts`. */
import { type ServiceContext, uuidV7 } from "rungs";
import type { ShardTransaction } from "rungs/database";
import type { IncomingFile } from "rungs/storage/fastify";
import { userTag } from "../accounts/accounts.ts";
import type { Upload, UploadPurpose, Uploads } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { inputs, parse } from "../domain/validation.ts";
import { userTopic } from "../notifications/topics.ts";
import type { Tables, UploadTable } from "../schema.ts";
import { pictureReceived, uploadRemoved, videoReceived } from "./media-events.ts";
import { accepted, idOf, mainNames, mainRendition, originalKey, perUser, renditionKey } from "./upload-rules.ts";
import {
  addUpload,
  clearAvatar,
  lockOwner,
  removeUpload,
  uploadById,
  uploadsOfOwner,
  uploadTotals,
} from "./upload-statements.ts";

type Context = Pick<ServiceContext<Tables>, "db" | "clock" | "random" | "storage" | "live" | "signedPaths">;
export type UploadRow = UploadTable;

/** A file that is stored, and not yet anybody's upload. */
export interface StoredFile {
  readonly ownerId: string;
  readonly uploadId: string;
  readonly purpose: UploadPurpose;
  readonly name: string;
  readonly isPrivate: boolean;
  readonly sizeBytes: number;
}

/** What an upload is to be. */
export interface WantedUpload {
  readonly ownerId: string;
  readonly purpose: UploadPurpose;
  /** For its owner's eyes only; a profile picture cannot be. */
  readonly isPrivate: boolean;
}

/** Above all ids. */
const lastId = "ffffffff-ffff-ffff-ffff-ffffffffffff";
const retryAfterMs = 60_000;

export function createUploads({ db, clock, random, storage, signedPaths }: Context): Uploads & {
  /** Raises a 413 or 429 problem when the owner may not have another upload now. */
  checkRoom(ownerId: string): Promise<void>;
  /** Stores the file under a key of its own. */
  store(wanted: WantedUpload, file: IncomingFile): Promise<StoredFile>;
  /** Makes what is stored an upload, and has it processed. */
  accept(file: StoredFile): Promise<Upload>;
  /** Takes back what is stored and did not become an upload. */
  discard(file: StoredFile): Promise<void>;
} {
  const checkTotals = async (tx: Pick<ShardTransaction<Tables>, "run">, ownerId: string, moreBytes: number) => {
    const [totals] = await tx.run(uploadTotals, { ownerId });
    const { uploads = 0, unprocessed = 0, bytes = 0 } = totals ?? {};
    if (unprocessed >= perUser.unprocessedMax) {
      const message = `has to wait: ${unprocessed} of yours are not processed yet (maximum is ${perUser.unprocessedMax})`;
      throw new ProblemError(429, { file: [message] }, retryAfterMs);
    }
    if (bytes + moreBytes > perUser.bytesMax || uploads >= perUser.uploadsMax)
      throw new ProblemError(413, { file: ["does not fit: your uploads are at their limit; delete some first"] });
  };

  return {
    async list(ownerId, page) {
      const { limit, before } = parse(inputs.uploadPage, page);
      const rows = await db.for(ownerId).run(uploadsOfOwner, { ownerId, limit, before: before ?? lastId });
      return rows.map((row) => shownUpload(row, signedPaths));
    },

    async byId(ownerId, uploadId) {
      const id = idOf(uploadId);
      const [row] = id === undefined ? [] : await db.for(ownerId).run(uploadById, { ownerId, uploadId: id });
      if (row === undefined) throw notFound();
      return shownUpload(row, signedPaths);
    },

    async remove(ownerId, uploadId) {
      const id = idOf(uploadId);
      if (id === undefined) throw notFound();
      const now = new Date(clock.now());
      await db.for(ownerId).transaction(async (tx) => {
        const [row] = await tx.run(removeUpload, { ownerId, uploadId: id });
        if (row === undefined) throw notFound();
        if (row.purpose === "avatar") {
          const prefix = `/${renditionKey({ ownerId, uploadId: id, isPrivate: row.is_private }, "")}`;
          const cleared = await tx.run(clearAvatar, { ownerId, prefix, now });
          if (cleared.length > 0) tx.invalidate(userTag(ownerId));
        }
        tx.publish(uploadRemoved, { ownerId, uploadId: id, purpose: row.purpose });
      });
    },

    checkRoom: (ownerId) => checkTotals(db.for(ownerId), ownerId, 0),

    async store({ ownerId, purpose, isPrivate }, { body, contentType, name, signal }) {
      const uploadId = uuidV7(clock, random);
      const options = { contentType, signal, sizeBytesMax: accepted[purpose].fileBytesMax };
      const { sizeBytes } = await storage.put(originalKey(ownerId, uploadId), body, options);
      return { ownerId, uploadId, purpose, name, isPrivate, sizeBytes };
    },

    async accept({ ownerId, uploadId, purpose, name, isPrivate, sizeBytes }) {
      const row = await db.for(ownerId).transaction(async (tx) => {
        const owners = await tx.run(lockOwner, { ownerId });
        if (owners.length === 0) throw new ProblemError(401, { token: ["is invalid"] });
        await checkTotals(tx, ownerId, sizeBytes);
        const now = new Date(clock.now());
        const [added] = await tx.run(addUpload, { ownerId, uploadId, purpose, name, isPrivate, sizeBytes, now });
        const event = purpose === "video" ? videoReceived : pictureReceived;
        // Somebody looks at the settings page until the avatar is there; pictures of articles can wait for it.
        tx.publish(event, { ownerId, uploadId, purpose }, { priority: purpose === "avatar" ? "high" : "normal" });
        return added as UploadRow;
      });
      return shownUpload(row, signedPaths);
    },

    discard: ({ ownerId, uploadId }) => storage.remove(originalKey(ownerId, uploadId)),
  };
}

/** An upload as its owner sees it. */
export function shownUpload(row: UploadRow, signedPaths: Context["signedPaths"]): Upload {
  const { owner_id: ownerId, upload_id: id, is_private: isPrivate } = row;
  const { purpose, name, state, progress, message, renditions } = row;
  const main = mainRendition(purpose, renditions);
  const addressOf = (rendition: string) => {
    const path = `/${renditionKey({ ownerId, uploadId: id, isPrivate }, rendition)}`;
    return isPrivate ? signedPaths.sign(path) : path;
  };
  const poster = renditions.find((rendition) => rendition.name === "poster.webp");
  return {
    id,
    purpose,
    name,
    isPrivate,
    state,
    progress,
    message,
    url: `/api/uploads/${id}`,
    media: main === undefined ? null : addressOf(main.name),
    poster: poster === undefined ? null : addressOf(poster.name),
    markdown: purpose === "avatar" || isPrivate ? null : `![${captionOf(name)}](${addressOf(mainNames[purpose])})`,
    renditions: renditions.map((rendition) => ({ ...rendition, url: addressOf(rendition.name) })),
    createdAt: row.created_at.toISOString(),
  };
}

/** The name without its ending and what Markdown would take for its own. */
function captionOf(name: string): string {
  const caption = name
    .replace(/\.[^.]{1,5}$/, "")
    .replace(/[^\p{L}\p{N}.,-]+/gu, " ")
    .trim();
  return caption === "" ? "untitled" : caption;
}

/** Tells the owner's open pages how an upload is. */
export async function tellOwner(
  { live, signedPaths }: Pick<Context, "live" | "signedPaths">,
  row: UploadRow,
): Promise<void> {
  await live.send(userTopic(row.owner_id), { event: "upload", data: shownUpload(row, signedPaths) });
}

function notFound(): ProblemError {
  return new ProblemError(404, { upload: ["not found"] });
}
