/** What happens to accounts that others may want to know. */
import { defineEvent } from "rungs/queue";
import { z } from "zod";

/** Somebody began to follow somebody. */
export const userFollowed = defineEvent("user.followed", z.object({ followedId: z.uuid(), followerId: z.uuid() }));
