/** What happens to payments, and what is to be done about them. */
import { defineEvent } from "rungs/queue";
import { z } from "zod";

const tip = { tipId: z.uuid(), payerId: z.uuid() };
const booked = {
  ...tip,
  payeeId: z.uuid(),
  /** What the payer paid, in minor units. */
  amountMinor: z.int().positive(),
  currency: z.string().length(3),
  message: z.string().meta({ sensitive: true }),
};

/** A tip was asked for and is to be charged. Key: the tip. */
export const tipRequested = defineEvent("tip.requested", z.object(tip));

/** The provider sent a sign about a tip's charge; the provider is to be asked what is true. Key: the tip. */
export const tipNotified = defineEvent("tip.notified", z.object({ ...tip, chargeId: z.string().max(255) }));

/** A tip has been under way for long; its outcome is to be found out. Key: the tip. */
export const tipOverdue = defineEvent("tip.overdue", z.object(tip));

/** The payer has paid and the payer's shard has booked it; the payee's is to. Key: the payee. */
export const tipCaptured = defineEvent("tip.captured", z.object({ ...booked, feeMinor: z.int().nonnegative() }));

/** The payee has the money: both shards have booked. Key: the payee. */
export const tipCompleted = defineEvent("tip.completed", z.object(booked));

/** Time to look for tips whose outcome nobody has told. */
export const reconcileDue = defineEvent("payments.reconcile_due", z.object({}));
