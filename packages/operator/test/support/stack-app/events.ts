/** What happens in the app for the launcher's tests, and what its services ask of each other. */
import { defineMethod } from "rungs/call";
import { defineEvent } from "rungs/queue";
import { z } from "zod";

export const noted = defineEvent("app.noted", z.object({ id: z.string(), ms: z.number() }));
export const charged = defineEvent("billing.charged", z.object({ id: z.string() }));

export const whoBills = defineMethod("billing.who", {
  input: z.object({}),
  output: z.object({ pid: z.number() }),
  isSafe: true,
});
