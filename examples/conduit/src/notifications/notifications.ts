/**
 * Notifications: what others did that concerns a user, told once, kept in a list, and sent live to the user's open pages.
 *
 * Numbers count up from 1 without gaps for each user: the number is taken in the transaction that stores the notification,
 * under the lock of the user's box, so they become readable in their order. A notification is sent live only after its
 * commit. So an open page that hears of number n, or comes back after its last one, finds all before it in the table.
 */
import type { Clock } from "rungs";
import type { Database, ShardTransaction } from "rungs/database";
import type { LiveMessage, LiveSender, TopicRecord } from "rungs/live";
import type { Delivery } from "rungs/queue";
import { profilesByIds } from "../accounts/account-statements.ts";
import type { Notification, NotificationBox, NotificationPage, Notifications } from "../domain/model.ts";
import { inputs, parse } from "../domain/validation.ts";
import { inPart } from "../partial.ts";
import type { NotificationTable, Tables } from "../schema.ts";
import {
  addNotification,
  notificationBox,
  notificationsAfter,
  notificationsBefore,
  readUpTo,
} from "./notification-statements.ts";
import { notificationText } from "./notification-text.ts";
import { userTopic } from "./topics.ts";

/** A notification about to be told. */
export interface NewNotification {
  readonly kind: Notification["kind"];
  /** Who did it; null when nobody did, e.g. a video that is ready. */
  readonly actorId: string | null;
  /** What it is about; the same kind, actor and subject is told once. */
  readonly subjectId: string;
  /** What the list shows of it. */
  readonly details: Notification["details"];
}

/** Notifications with what the handlers and the live streams need beside the user's own operations. */
export interface NotificationCentre extends Notifications {
  /**
   * Tells a user: what `make` gives is stored in the delivery's transaction and then sent live. However often the message is
   * delivered, it is told once.
   */
  tell(
    delivery: Pick<Delivery<unknown>, "once" | "attempt">,
    userId: string,
    make: (tx: ShardTransaction<Tables>) => Promise<NewNotification | undefined>,
  ): Promise<void>;
  /** What a stream of the user resumes from. */
  record(userId: string): TopicRecord;
}

type Row = Pick<NotificationTable, "number" | "kind" | "actor_id" | "details" | "created_at">;

/** Replayed at most to a page that missed more; it then loads the list instead. */
const missedMax = 100;

export function createNotifications(options: {
  readonly db: Database<Tables>;
  readonly clock: Clock;
  readonly live: LiveSender;
}): NotificationCentre {
  const { db, clock, live } = options;

  /** With what people are called now, not when it happened. */
  async function shown(rows: readonly Row[]): Promise<Notification[]> {
    const actors = [...new Set(rows.flatMap(({ actor_id }) => (actor_id === null ? [] : [actor_id])))];
    const { rows: profiles } = await db.byKey(
      actors,
      (shard, userIds) => shard.run(profilesByIds, { userIds, viewerId: null }),
      inPart,
    );
    const byId = new Map(profiles.map((profile) => [profile.user_id, profile]));
    return rows.map(({ number, kind, actor_id, details, created_at }) => {
      const actor = actor_id === null ? undefined : byId.get(actor_id);
      const notification = {
        id: number,
        kind,
        details,
        createdAt: created_at.toISOString(),
        actor: actor === undefined ? null : { username: actor.username, image: actor.image },
      };
      return { ...notification, text: notificationText(notification) };
    });
  }

  async function messages(rows: readonly Row[]): Promise<LiveMessage[]> {
    const notifications = await shown(rows);
    return notifications.map((data) => ({ id: String(data.id), event: "notification", data }));
  }

  async function boxOf(userId: string): Promise<NotificationBox> {
    const [box] = await db.for(userId).run(notificationBox, { userId });
    return boxFrom(box);
  }

  async function rowsAfter(userId: string, after: number): Promise<Row[]> {
    return db.for(userId).run(notificationsAfter, { userId, after, limit: missedMax + 1 });
  }

  return {
    box: boxOf,

    async list(userId, page): Promise<NotificationPage> {
      const { limit, before } = parse(inputs.notificationPage, page);
      const [rows, box] = await Promise.all([
        db.for(userId).run(notificationsBefore, { userId, before, limit }),
        boxOf(userId),
      ]);
      return { notifications: await shown(rows), ...box };
    },

    async markRead(userId, upTo) {
      const { upTo: number } = parse(inputs.readMark, { upTo });
      const [row] = await db.for(userId).run(readUpTo, { userId, number });
      const box = boxFrom(row);
      // The user's other pages count down as well.
      await live.send(userTopic(userId), { event: "read", data: { upTo: box.readUpTo } });
      return box;
    },

    async tell(delivery, userId, make) {
      const now = new Date(clock.now());
      const row = await delivery.once(db.for(userId), async (tx): Promise<Row | undefined> => {
        const told = await make(tx);
        if (told === undefined) return undefined;
        const { kind, actorId, subjectId, details } = told;
        const values = { userId, kind, actorId, subjectId, details: JSON.stringify(details), now };
        const [added] = await tx.run(addNotification, values);
        return added && { number: added.number, kind, actor_id: actorId, details, created_at: now };
      });
      const [message] = row === undefined ? [] : await messages([row]);
      if (message !== undefined) return live.send(userTopic(userId), message);
      // The last try may have ended between its commit and the sending: the newest tells open pages to catch up.
      if (delivery.attempt === 1) return;
      const { newest } = await boxOf(userId);
      const [last] = newest === 0 ? [] : await messages(await rowsAfter(userId, newest - 1));
      if (last !== undefined) await live.send(userTopic(userId), last);
    },

    record: (userId) => ({
      topic: userTopic(userId),
      newest: async () => String((await boxOf(userId)).newest),
      async after(position) {
        const after = Number(position);
        if (after > numberMax) return "gap";
        const rows = await rowsAfter(userId, after);
        if (rows.length > missedMax) return "gap";
        // A position that was never given comes from another database, or from a later state of this one.
        if (rows.length === 0 && after > (await boxOf(userId)).newest) return "gap";
        return messages(rows);
      },
    }),
  };
}

/** PostgreSQL's integer. */
const numberMax = 2 ** 31 - 1;

function boxFrom(row: { readonly last_number: number; readonly read_number: number } | undefined): NotificationBox {
  const { last_number: newest, read_number: readUpTo } = row ?? { last_number: 0, read_number: 0 };
  return { newest, readUpTo, unreadCount: newest - readUpTo };
}
