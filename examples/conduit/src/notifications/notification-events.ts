/** What the notifications tell themselves. */
import { defineEvent } from "rungs/queue";
import { z } from "zod";

/** Time to forget notifications that are too old to interest anybody. */
export const oldNotificationsDue = defineEvent("notifications.old_due", z.object({}));
