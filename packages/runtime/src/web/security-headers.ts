/**
 * Headers every answer carries, errors included (OWASP Secure Headers Project).
 *
 * The policy is that of an API: nothing may be loaded, framed or run from an answer. Pages replace
 * `content-security-policy` by their own. Answers may be read from other origins, since the API is public; what they say
 * still depends on a token that no browser sends by itself.
 */
export const securityHeaders: Readonly<Record<string, string>> = Object.freeze({
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "strict-origin-when-cross-origin",
  "cross-origin-opener-policy": "same-origin",
});

/** Added when the client speaks https: two years, as the preload list asks. */
export const strictTransportSecurity = "max-age=63072000; includeSubDomains";
