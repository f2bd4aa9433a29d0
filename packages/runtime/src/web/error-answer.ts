/** How an error becomes an HTTP answer. What the client cannot act on is not told to it. */
import { ConflictError, UnavailableError } from "../kernel/errors.ts";

/** An error as the client sees it. */
export interface ErrorAnswer {
  readonly status: number;
  /** Messages by field or thing, as the RealWorld API shapes them. */
  readonly errors: Readonly<Record<string, readonly string[]>>;
  readonly retryAfterSeconds?: number;
  /** True when the fault is ours: to be logged with its cause. */
  readonly isFault: boolean;
}

const plainStatus: Readonly<Record<number, string>> = {
  400: "the request could not be understood",
  404: "not found",
  405: "this method is not allowed here",
  408: "the request took too long to arrive",
  413: "is too large",
  414: "the address is too long",
  415: "this content type is not supported; send application/json",
  431: "the headers are too large",
};

/** Describes any thrown value. */
export function describeError(error: unknown): ErrorAnswer {
  if (error instanceof UnavailableError) {
    return {
      status: 503,
      errors: { body: ["temporarily unavailable; please try again"] },
      retryAfterSeconds: 1,
      isFault: true,
    };
  }
  if (error instanceof ConflictError)
    return { status: 409, errors: { body: ["was changed by another request; please try again"] }, isFault: false };
  const { statusCode, errors, retryAfterMs } = (error ?? {}) as {
    statusCode?: unknown;
    errors?: unknown;
    retryAfterMs?: unknown;
  };
  if (typeof statusCode !== "number" || statusCode < 400 || statusCode > 499) {
    return { status: 500, errors: { body: ["something went wrong on our side"] }, isFault: true };
  }
  return {
    status: statusCode,
    errors: isErrors(errors) ? errors : { body: [plainStatus[statusCode] ?? "the request was refused"] },
    ...(typeof retryAfterMs === "number" ? { retryAfterSeconds: Math.ceil(retryAfterMs / 1_000) } : {}),
    isFault: false,
  };
}

function isErrors(value: unknown): value is ErrorAnswer["errors"] {
  return (
    typeof value === "object" && value !== null && Object.values(value).every((messages) => Array.isArray(messages))
  );
}
