/** Requests the session tier turns away, with the HTTP status that says so. */
import { RungsError } from "../kernel/errors.ts";

/** The request is not allowed as it is; Fastify and others answer with `statusCode`. */
export class RequestRefusedError extends RungsError {
  override readonly name = "RequestRefusedError";
  /** 401 for `SESSION_REQUIRED`, 403 for `CSRF_REFUSED`. */
  readonly statusCode: number;
  /** The message once more, for the body of the answer; safe to show. */
  readonly errors: { readonly body: readonly [string] };

  constructor(code: "SESSION_REQUIRED" | "CSRF_REFUSED", message: string) {
    super(code, message);
    this.errors = { body: [message] };
    this.statusCode = code === "SESSION_REQUIRED" ? 401 : 403;
  }
}
