/**
 * Headers every answer carries, errors included (OWASP REST Security Cheat Sheet).
 *
 * The policy is that of an API: nothing may be loaded, framed or run from an answer. Pages replace
 * `content-security-policy` by their own and add what concerns documents only, such as a referrer policy.
 */
export const securityHeaders: Readonly<Record<string, string>> = Object.freeze({
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
});

/** Added when the client speaks https: two years, as the preload list asks. */
export const strictTransportSecurity = "max-age=63072000; includeSubDomains";
