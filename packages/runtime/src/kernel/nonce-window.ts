/**
 * Nonces of signatures that are still good, so that each is believed once. They are kept by the second in which their signatures end:
 * forgetting costs nothing.
 */

/** Why a nonce was not taken: it was before, or too many are kept already to tell. */
export type NonceRefusal = "replayed" | "full";

/** What this process has seen. */
export class NonceWindow {
  private readonly noncesMax: number;
  private readonly seconds = new Map<number, Set<string>>();
  private count = 0;
  private forgottenTo = 0;

  /** `noncesMax`: beyond, nothing further is taken, as it may be a replay; default 500,000, some 50 MB. */
  constructor(noncesMax = 500_000) {
    this.noncesMax = noncesMax;
  }

  /** Undefined when it is new; it is then kept until `until`. Times in ms since the epoch. */
  take(nonce: string, until: number, now: number): NonceRefusal | undefined {
    this.forget(Math.floor(now / 1_000));
    const second = Math.floor(until / 1_000);
    let known = this.seconds.get(second);
    if (known?.has(nonce) === true) return "replayed";
    if (this.count >= this.noncesMax) return "full";
    if (known === undefined) {
      known = new Set();
      this.seconds.set(second, known);
    }
    known.add(nonce);
    this.count++;
    return undefined;
  }

  private forget(second: number): void {
    if (second <= this.forgottenTo) return;
    this.forgottenTo = second;
    for (const [each, nonces] of this.seconds) {
      if (each >= second) continue;
      this.count -= nonces.size;
      this.seconds.delete(each);
    }
  }
}
