/** Requests turned away for their idempotency key, with the HTTP status that says so. */
import { RungsError } from "../kernel/errors.ts";

/** What can be wrong with a key. */
export type IdempotencyErrorCode = "IDEMPOTENCY_KEY_MISSING" | "IDEMPOTENCY_KEY_INVALID" | "IDEMPOTENCY_KEY_REUSED";

/** The request is refused and nothing was done; Fastify and others answer with `statusCode`. */
export class IdempotencyError extends RungsError {
  override readonly name = "IdempotencyError";
  /** 422 for `IDEMPOTENCY_KEY_REUSED`, else 400: the draft's section 2.7. */
  readonly statusCode: 400 | 422;
  /** The message once more, for the body of the answer; safe to show. */
  readonly errors: { readonly "Idempotency-Key": readonly [string] };

  constructor(code: IdempotencyErrorCode, problem: string) {
    super(code, `Idempotency-Key ${problem}.`);
    this.statusCode = code === "IDEMPOTENCY_KEY_REUSED" ? 422 : 400;
    this.errors = { "Idempotency-Key": [problem] };
  }
}
