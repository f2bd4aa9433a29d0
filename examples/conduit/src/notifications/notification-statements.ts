/** The queries of notifications: they live with whom they are for. */
import { sql } from "kysely";
import { statements } from "rungs/database";
import type { NotificationTable, Tables } from "../schema.ts";

const define = statements<Tables>();

/**
 * Adds a notification under its owner's next number. No row comes back when the owner was told the same before: following
 * twice, or taking a favourite back and setting it again, is told once.
 */
export const addNotification = define<{
  userId: string;
  kind: NotificationTable["kind"];
  actorId: string | null;
  subjectId: string;
  details: string;
  now: Date;
}>()("notification_add", (q, p) =>
  q
    .with("told", (w) =>
      w
        .selectFrom("notifications")
        .select("number")
        .where("user_id", "=", p.userId)
        .where("kind", "=", p.kind)
        .where("subject_id", "=", p.subjectId)
        .where(sql<boolean>`actor_id is not distinct from ${p.actorId}::uuid`),
    )
    .with("box", (w) =>
      w
        .insertInto("notification_boxes")
        .columns(["user_id", "last_number"])
        .expression(
          w
            .selectNoFrom([sql<string>`${p.userId}::uuid`.as("user_id"), sql<number>`1`.as("last_number")])
            .where((eb) => eb.not(eb.exists(eb.selectFrom("told").select("number")))),
        )
        .onConflict((conflict) =>
          conflict.column("user_id").doUpdateSet({ last_number: sql<number>`notification_boxes.last_number + 1` }),
        )
        .returning(["user_id", "last_number"]),
    )
    .insertInto("notifications")
    .columns(["user_id", "number", "kind", "actor_id", "subject_id", "details", "created_at"])
    .expression((eb) =>
      eb
        .selectFrom("box")
        .select([
          "user_id",
          "last_number",
          sql<string>`${p.kind}::text`.as("kind"),
          sql<string | null>`${p.actorId}::uuid`.as("actor_id"),
          sql<string>`${p.subjectId}::text`.as("subject_id"),
          sql<object>`${p.details}::text::jsonb`.as("details"),
          sql<Date>`${p.now}::timestamptz`.as("created_at"),
        ]),
    )
    .returning("number"),
);

/** The newest notifications with a number below `before`. */
export const notificationsBefore = define<{ userId: string; before: number; limit: number }>()(
  "notifications_before",
  (q, p) =>
    q
      .selectFrom("notifications")
      .select(["number", "kind", "actor_id", "subject_id", "details", "created_at"])
      .where("user_id", "=", p.userId)
      .where("number", "<", p.before)
      .orderBy("number", "desc")
      .limit(p.limit),
);

/** Notifications after a number, oldest first: what a page missed while it was not listening. */
export const notificationsAfter = define<{ userId: string; after: number; limit: number }>()(
  "notifications_after",
  (q, p) =>
    q
      .selectFrom("notifications")
      .select(["number", "kind", "actor_id", "subject_id", "details", "created_at"])
      .where("user_id", "=", p.userId)
      .where("number", ">", p.after)
      .orderBy("number")
      .limit(p.limit),
);

/** How far an owner's notifications go and were read. */
export const notificationBox = define<{ userId: string }>()("notification_box", (q, p) =>
  q.selectFrom("notification_boxes").select(["last_number", "read_number"]).where("user_id", "=", p.userId),
);

/** Marks everything up to a number as read; never back. */
export const readUpTo = define<{ userId: string; number: number }>()("notifications_read", (q, p) =>
  q
    .updateTable("notification_boxes")
    .set({ read_number: sql<number>`least(last_number, greatest(read_number, ${p.number}::int))` })
    .where("user_id", "=", p.userId)
    .returning(["last_number", "read_number"]),
);

/** The oldest notifications made before a time. */
export const oldNotifications = define<{ before: Date; limit: number }>()("notifications_old", (q, p) =>
  q
    .selectFrom("notifications")
    .select(["user_id", "number"])
    .where("created_at", "<", p.before)
    .orderBy("created_at")
    .limit(p.limit),
);

/** Forgets an owner's notifications up to a number; those unread count as read. */
export const forgetUpTo = define<{ userId: string; number: number }>()("notifications_forget", (q, p) =>
  q
    .with("gone", (w) => w.deleteFrom("notifications").where("user_id", "=", p.userId).where("number", "<=", p.number))
    .updateTable("notification_boxes")
    .set({ read_number: sql<number>`greatest(read_number, ${p.number}::int)` })
    .where("user_id", "=", p.userId),
);

/** What a notification says of an article. */
export const articleTitle = define<{ authorId: string; articleId: string }>()("notification_article", (q, p) =>
  q
    .selectFrom("articles")
    .select(["slug", "title"])
    .where("author_id", "=", p.authorId)
    .where("article_id", "=", p.articleId),
);
