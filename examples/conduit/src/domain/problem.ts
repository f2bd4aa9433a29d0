/** Messages by the field (or thing) they are about, as the RealWorld API shapes errors. */
export type ProblemErrors = Readonly<Record<string, readonly string[]>>;

/** Something the caller got wrong, with the HTTP status that says so. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  /** 401 who are you, 403 not yours, 404 no such thing, 409 changed meanwhile, 422 invalid input. */
  readonly statusCode: 400 | 401 | 403 | 404 | 409 | 413 | 415 | 422 | 429;
  readonly errors: ProblemErrors;
  /** When another try makes sense, in milliseconds from now. */
  readonly retryAfterMs: number | undefined;

  constructor(statusCode: ProblemError["statusCode"], errors: ProblemErrors, retryAfterMs?: number) {
    super(
      Object.entries(errors)
        .map(([field, messages]) => `${field} ${messages.join(", ")}`)
        .join("; "),
    );
    this.statusCode = statusCode;
    this.errors = errors;
    this.retryAfterMs = retryAfterMs;
  }
}
