/**
 * The port to whoever moves the money, and its errors.
 *
 * The one rule: an outcome that is not known is never guessed. `charge` with the same `tipId` is the same charge, so a call
 * whose answer was lost is made again, or the provider is asked.
 */
import type { IncomingHttpHeaders } from "node:http";

/** What is to be paid. */
export interface ChargeRequest {
  /** The provider's idempotency key: charging twice under it charges once, for at least 24 hours. */
  readonly tipId: string;
  /** Comes back in notices, so that they find the tip's shard. */
  readonly payerId: string;
  readonly amountMinor: number;
  /** ISO 4217. */
  readonly currency: string;
  /** Ends the wait; the outcome is then unknown. */
  readonly signal: AbortSignal;
}

/** A charge as the provider knows it. */
export type Charge =
  | { readonly state: "pending" | "succeeded"; readonly chargeId: string }
  /** Final: no money moved. `reason` is the provider's word, such as "insufficient_funds". */
  | { readonly state: "declined"; readonly chargeId: string; readonly reason: string };

/** What a notice of the provider says. It may come late, twice, or after a later one, so nothing is concluded from it. */
export interface PaymentNotice {
  /** The same at each repetition. */
  readonly noticeId: string;
  readonly tipId: string;
  readonly payerId: string;
  readonly chargeId: string;
}

/** How to find a charge: by the provider's id, or by ours when its answer was lost. */
export type ChargeReference = { readonly chargeId: string } | { readonly tipId: string };

/** A payment provider. */
export interface PaymentProvider {
  readonly name: string;
  /** Raises {@link ProviderUnknownError} when the outcome is unknown, {@link ProviderRefusedError} when nothing will be charged. */
  charge(request: ChargeRequest): Promise<Charge>;
  /** The charge as it is now; undefined when the provider has none. Raises {@link ProviderUnknownError}. */
  retrieve(reference: ChargeReference, signal: AbortSignal): Promise<Charge | undefined>;
  /**
   * Reads a notice from the raw body of a webhook; undefined for one that is not about a tip. Raises
   * {@link NoticeRefusedError} unless its signature is the provider's and fresh at `nowMs`.
   */
  verifyWebhook(body: Buffer, headers: IncomingHttpHeaders, nowMs: number): PaymentNotice | undefined;
}

/** No answer, or one that says nothing about the charge: try again with the same key, or ask. */
export class ProviderUnknownError extends Error {
  override readonly name = "ProviderUnknownError";
}

/** The provider understood the charge and will not do it. */
export class ProviderRefusedError extends Error {
  override readonly name = "ProviderRefusedError";
  /** The provider's code. */
  readonly reason: string;

  constructor(reason: string) {
    super(`The payment provider refused the charge: ${reason}.`);
    this.reason = reason;
  }
}

/** The notice is not from the provider, or too old to be believed. Nothing of it may be used. */
export class NoticeRefusedError extends Error {
  override readonly name = "NoticeRefusedError";
}
