/**
 * A budget of retries: each call adds a tenth of a retry, up to ten in all. So a target that fails is sent a tenth more than without
 * retries and not twice or three times as much (Beyer et al., "Site Reliability Engineering", 2016, chapter 21; the bucket as in
 * gRPC's retry throttling, proposal A6).
 */
const perCall = 0.1;
const retriesMax = 10;

/** One target's budget; full at the start. */
export class RetryBudget {
  private tokens = retriesMax;

  /** A call was made. */
  earn(): void {
    this.tokens = Math.min(retriesMax, this.tokens + perCall);
  }

  /** Whether one retry may be made. */
  spend(): boolean {
    // A tenth has no exact binary form: ten calls make one retry all the same.
    if (this.tokens < 1 - 1e-9) return false;
    this.tokens -= 1;
    return true;
  }
}
