/** What payments answer when other services call: data only, so that who calls needs none of their code. */
import { callError, defineMethod } from "rungs/call";
import { IdempotencyError } from "rungs/idempotency";
import { z } from "zod";
import { ProblemError } from "../domain/problem.ts";
import { currencies } from "../domain/validation.ts";

/** What people got wrong arrives at the faces as it is raised here. */
const errors = {
  problem: callError(
    ProblemError,
    z.object({
      statusCode: z.literal([400, 401, 403, 404, 409, 413, 415, 422, 429]),
      errors: z.record(z.string(), z.array(z.string())),
      retryAfterMs: z.number().optional(),
    }),
    (problem) => new ProblemError(problem.statusCode, problem.errors, problem.retryAfterMs),
  ),
  idempotency: callError(
    IdempotencyError,
    z.object({
      code: z.enum(["IDEMPOTENCY_KEY_MISSING", "IDEMPOTENCY_KEY_INVALID", "IDEMPOTENCY_KEY_REUSED"]),
      errors: z.object({ "Idempotency-Key": z.tuple([z.string()]) }),
    }),
    ({ code, errors: { "Idempotency-Key": problem } }) => new IdempotencyError(code, problem[0]),
  ),
};

/** As long as a statement may take: a payer would rather wait than wonder. */
const deadlineMs = 10_000;

const person = z.object({ username: z.string(), image: z.string() }).nullable();
const tip = z.object({
  id: z.string(),
  state: z.enum(["requested", "charging", "succeeded", "declined", "failed"]),
  reason: z.string().nullable(),
  amount: z.int(),
  currency: z.string(),
  message: z.string(),
  to: person,
  createdAt: z.string(),
  updatedAt: z.string(),
});
const receivedTip = z.object({
  id: z.string(),
  from: person,
  amount: z.int(),
  fee: z.int(),
  currency: z.string(),
  message: z.string(),
  createdAt: z.string(),
});
const page = z.object({ userId: z.uuid(), limit: z.int().min(1).max(100), before: z.uuid().optional() });

/** The methods. */
export const payments = {
  /** Asks for a tip; one for each payer and idempotency key, however often it comes. */
  give: defineMethod("payments.give", {
    input: z.object({
      payerId: z.uuid(),
      username: z.string(),
      tip: z.object({ amount: z.int(), currency: z.enum(currencies), message: z.string() }),
    }),
    output: z.object({ tip, replayed: z.boolean() }),
    ...{ isIdempotent: true, deadlineMs, errors },
  }),
  /** A tip for its payer. */
  tip: defineMethod("payments.tip", {
    input: z.object({ payerId: z.uuid(), tipId: z.string() }),
    output: tip,
    ...{ isSafe: true, deadlineMs, errors },
  }),
  given: defineMethod("payments.given", {
    input: page,
    output: z.array(tip).readonly(),
    ...{ isSafe: true, deadlineMs, errors },
  }),
  received: defineMethod("payments.received", {
    input: page,
    output: z.array(receivedTip).readonly(),
    ...{ isSafe: true, deadlineMs, errors },
  }),
  /** What the site owes a user, in each currency. */
  balance: defineMethod("payments.balance", {
    input: z.object({ userId: z.uuid() }),
    output: z.array(z.object({ currency: z.string(), amount: z.int() })).readonly(),
    ...{ isSafe: true, deadlineMs, errors },
  }),
};
