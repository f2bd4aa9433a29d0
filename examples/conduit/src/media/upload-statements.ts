/** The queries of uploads: they live with their owner. */
import { sql } from "kysely";
import { statements } from "rungs/database";
import type { Tables } from "../schema.ts";

const define = statements<Tables>();

const columns = [
  "owner_id",
  "upload_id",
  "purpose",
  "name",
  "is_private",
  "state",
  "progress",
  "message",
  "renditions",
  "created_at",
  "updated_at",
] as const;

/** How much an owner has. `bytes`: originals that are still kept, and renditions. */
export const uploadTotals = define<{ ownerId: string }>()("upload_totals", (q, p) =>
  q
    .selectFrom("uploads")
    .select([
      sql<number>`count(*)::int`.as("uploads"),
      sql<number>`(count(*) filter (where state in ('received', 'processing', 'waiting')))::int`.as("unprocessed"),
      sql<number>`coalesce(sum(size_bytes), 0)::float8`.as("bytes"),
    ])
    .where("owner_id", "=", p.ownerId),
);

/** Makes the owner's other uploads wait for this transaction, so that bounds hold. No row when the account is gone. */
export const lockOwner = define<{ ownerId: string }>()("upload_lock_owner", (q, p) =>
  q.selectFrom("users").select("user_id").where("user_id", "=", p.ownerId).forNoKeyUpdate(),
);

/** Notes a new upload. */
export const addUpload = define<{
  ownerId: string;
  uploadId: string;
  purpose: string;
  name: string;
  isPrivate: boolean;
  sizeBytes: number;
  now: Date;
}>()("upload_add", (q, p) =>
  q
    .insertInto("uploads")
    .values({
      owner_id: p.ownerId,
      upload_id: p.uploadId,
      purpose: p.purpose,
      name: p.name,
      is_private: p.isPrivate,
      size_bytes: p.sizeBytes,
      created_at: p.now,
      updated_at: p.now,
    } as never)
    .returning(columns),
);

/** One upload of an owner. */
export const uploadById = define<{ ownerId: string; uploadId: string }>()("upload_by_id", (q, p) =>
  q.selectFrom("uploads").select(columns).where("owner_id", "=", p.ownerId).where("upload_id", "=", p.uploadId),
);

/** An owner's uploads, newest first, those before an id. */
export const uploadsOfOwner = define<{ ownerId: string; before: string; limit: number }>()("uploads_of_owner", (q, p) =>
  q
    .selectFrom("uploads")
    .select(columns)
    .where("owner_id", "=", p.ownerId)
    .where("upload_id", "<", p.before)
    .orderBy("upload_id", "desc")
    .limit(p.limit),
);

/** Moves an upload that is in one of these states; the row comes back only if it was. */
export const moveUpload = define<{
  ownerId: string;
  uploadId: string;
  from: readonly string[];
  state: string;
  progress: number;
  message: string | null;
  now: Date;
}>()("upload_move", (q, p) =>
  q
    .updateTable("uploads")
    .set({ state: p.state, progress: p.progress, message: p.message, updated_at: p.now } as never)
    .where("owner_id", "=", p.ownerId)
    .where("upload_id", "=", p.uploadId)
    .where("state", "=", sql<never>`any(${p.from}::text[])`)
    .returning(columns),
);

/** Ends the uploads that were to be processed and have not moved since. */
export const failAbandoned = define<{ before: Date; message: string; now: Date }>()("upload_fail_abandoned", (q, p) =>
  q
    .updateTable("uploads")
    .set({ state: "failed", progress: 0, message: p.message, updated_at: p.now } as never)
    .where("state", "=", "processing")
    .where("updated_at", "<", p.before)
    .returning(columns),
);

/** Marks an upload as ready. */
export const finishUpload = define<{
  ownerId: string;
  uploadId: string;
  renditions: string;
  sizeBytes: number;
  now: Date;
}>()("upload_finish", (q, p) =>
  q
    .updateTable("uploads")
    .set({
      state: "ready",
      progress: 100,
      message: null,
      renditions: sql`${p.renditions}::text::jsonb`,
      size_bytes: p.sizeBytes,
      updated_at: p.now,
    } as never)
    .where("owner_id", "=", p.ownerId)
    .where("upload_id", "=", p.uploadId)
    .where("state", "!=", "ready")
    .returning(columns),
);

/** Forgets an upload. */
export const removeUpload = define<{ ownerId: string; uploadId: string }>()("upload_remove", (q, p) =>
  q
    .deleteFrom("uploads")
    .where("owner_id", "=", p.ownerId)
    .where("upload_id", "=", p.uploadId)
    .returning(["purpose", "is_private", "renditions"]),
);

/** Makes a picture the owner's own, unless a later one is. */
export const setAvatar = define<{ ownerId: string; uploadId: string; image: string; now: Date }>()(
  "upload_set_avatar",
  (q, p) =>
    q
      .updateTable("users")
      .set({ image: p.image, updated_at: p.now })
      .where("user_id", "=", p.ownerId)
      .where((eb) =>
        eb.not(
          eb.exists(
            eb
              .selectFrom("uploads as later")
              .select("later.upload_id")
              .whereRef("later.owner_id", "=", "users.user_id")
              .where("later.purpose", "=", "avatar")
              .where("later.state", "=", "ready")
              .where("later.upload_id", ">", p.uploadId),
          ),
        ),
      )
      .returning("user_id"),
);

/** Takes a picture that is gone from its owner's profile. */
export const clearAvatar = define<{ ownerId: string; prefix: string; now: Date }>()("upload_clear_avatar", (q, p) =>
  q
    .updateTable("users")
    .set({ image: "", updated_at: p.now })
    .where("user_id", "=", p.ownerId)
    .where(sql<boolean>`starts_with(image, ${p.prefix}::text)`)
    .returning("user_id"),
);

/** Which of these uploads there are, of several owners. */
export const uploadsThatExist = define<{ ownerIds: readonly string[]; uploadIds: readonly string[] }>()(
  "uploads_that_exist",
  (q, p) =>
    q
      .selectFrom("uploads")
      .select(["owner_id", "upload_id", "is_private", "state", "renditions"])
      .where("owner_id", "=", sql<string>`any(${p.ownerIds}::uuid[])`)
      .where("upload_id", "=", sql<string>`any(${p.uploadIds}::uuid[])`),
);
