/** The web tier's policy: health, errors, headers and request ids, for any Node http server. */
export { describeError, type ErrorAnswer } from "./error-answer.ts";
export { Health, type Readiness, type ReadinessCheck } from "./health.ts";
export { type RateLimit, type RateLimitStore, type RateRequest, type RateVerdict, rateLimit } from "./rate-limit.ts";
export { requestId } from "./request-id.ts";
export { securityHeaders, strictTransportSecurity } from "./security-headers.ts";
