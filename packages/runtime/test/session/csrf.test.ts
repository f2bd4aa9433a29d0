import { describe, expect, it } from "vitest";
import { type CsrfEvidence, csrfToken, passesCsrf } from "../../src/session/csrf.ts";

const sessionToken = "s".repeat(43);
const valid = csrfToken(sessionToken);

function judge(evidence: Partial<CsrfEvidence>, tokens: { sessionToken?: string; token?: string } = { sessionToken }) {
  return passesCsrf(
    {
      method: "POST",
      secFetchSite: undefined,
      origin: undefined,
      referer: undefined,
      host: "app.example",
      isSecure: true,
      ...evidence,
    },
    { sessionToken: tokens.sessionToken, token: tokens.token },
  );
}

describe("the CSRF rule", () => {
  it.each(["GET", "HEAD", "OPTIONS", "TRACE"])("lets %s pass from anywhere", (method) => {
    expect(judge({ method, secFetchSite: "cross-site", origin: "https://evil.example" })).toBe(true);
  });

  it.each(["POST", "PUT", "PATCH", "DELETE", "PURGE", "get"])("binds %s", (method) => {
    expect(judge({ method, secFetchSite: "cross-site" })).toBe(false);
  });

  it.each([
    ["same-origin", true],
    ["none", true],
    ["same-site", false],
    ["cross-site", false],
    ["same-origin, cross-site", false],
    ["", false],
    ["Same-Origin", false],
  ])("goes by Sec-Fetch-Site alone when it is there: %s", (secFetchSite, passes) => {
    expect(judge({ secFetchSite })).toBe(passes);
    // Neither a right origin nor a right token outweighs it.
    expect(judge({ secFetchSite, origin: "https://app.example" }, { sessionToken, token: valid })).toBe(passes);
  });

  it.each([
    ["https://app.example", "app.example", true, true],
    ["https://app.example", "APP.example", true, true],
    ["https://app.example:8443", "app.example:8443", true, true],
    ["http://app.example", "app.example", false, true],
    // Behind a balancer that ends TLS and does not say so.
    ["https://app.example", "app.example", false, true],
    ["http://app.example", "app.example", true, false],
    ["https://app.example:8443", "app.example", true, false],
    ["https://app.example", "app.example:8443", true, false],
    ["https://evil.example", "app.example", true, false],
    ["https://app.example.evil.example", "app.example", true, false],
    ["https://sub.app.example", "app.example", true, false],
    ["https://app.example@evil.example", "app.example", true, false],
    ["https://evil.example/app.example", "app.example", true, false],
    ["ftp://app.example", "app.example", false, false],
    ["app.example", "app.example", true, false],
    ["", "app.example", true, false],
    ["https://app.example", undefined, true, false],
  ])("else compares the origin %s with the host %s (https: %s): %s", (from, host, isSecure, passes) => {
    expect(judge({ origin: from, host, isSecure })).toBe(passes);
    expect(judge({ referer: from === "" ? from : `${from}/page?q=1`, host, isSecure })).toBe(passes);
    // A token does not outweigh a foreign origin.
    expect(judge({ origin: from, host, isSecure }, { sessionToken, token: valid })).toBe(passes);
  });

  it("prefers Origin to Referer, unless it is null", () => {
    expect(judge({ origin: "https://evil.example", referer: "https://app.example/" })).toBe(false);
    expect(judge({ origin: "null", referer: "https://app.example/" })).toBe(true);
    expect(judge({ origin: "null", referer: "https://evil.example/" })).toBe(false);
  });

  it.each([undefined, "null"])("asks for the session's token when nothing tells the origin (Origin: %s)", (origin) => {
    expect(judge({ origin })).toBe(false);
    expect(judge({ origin }, { sessionToken, token: valid })).toBe(true);
    for (const token of [
      "",
      "x",
      valid.slice(1),
      `${valid}x`,
      sessionToken,
      csrfToken("t".repeat(43)),
      `é${valid.slice(1)}`,
    ]) {
      expect(judge({ origin }, { sessionToken, token })).toBe(false);
    }
  });

  it("without a session lets a client without origin pass, but no sandboxed frame", () => {
    expect(judge({}, {})).toBe(true);
    expect(judge({ origin: "null" }, {})).toBe(false);
    expect(judge({ origin: "null" }, { token: csrfToken("") })).toBe(false);
    expect(judge({ secFetchSite: "cross-site" }, {})).toBe(false);
  });

  it("gives each session its own token, which is not the session's", () => {
    expect(csrfToken("a".repeat(43))).not.toBe(csrfToken("b".repeat(43)));
    expect(valid).not.toContain(sessionToken);
    expect(csrfToken(sessionToken)).toBe(valid);
  });
});
