import { describe, expect, it } from "vitest";
import { readSessionCookie, readSessionToken, sessionCookie } from "../../src/session/session-token.ts";

describe("the token of a request", () => {
  it.each([
    ["Token abc", "abc"],
    ["token abc", "abc"],
    ["Bearer abc", "abc"],
    ["BEARER   abc ", "abc"],
    ["Token", ""],
    ["Bearer ", ""],
  ])("is read from Authorization: %s", (authorization, token) => {
    expect(readSessionToken({ authorization }, true)).toEqual({ token, source: "bearer" });
  });

  it("is the bearer's when a cookie comes along", () => {
    const headers = { authorization: "Token abc", cookie: "__Host-session=def" };
    expect(readSessionToken(headers, true)).toEqual({ token: "abc", source: "bearer" });
  });

  it.each(["Basic dXNlcjpwYXNz", "Tokenabc", "Token a b", "Digest x", ""])(
    "is the cookie's when Authorization is another scheme's: %s",
    (authorization) => {
      const headers = { authorization, cookie: "__Host-session=def" };
      expect(readSessionToken(headers, true)).toEqual({ token: "def", source: "cookie" });
    },
  );

  it("is read from the cookie of the request's own scheme only", () => {
    const cookie = "a=1; session=plain; __Host-session=secure; session=second";
    expect(readSessionCookie(cookie, true)).toBe("secure");
    expect(readSessionCookie(cookie, false)).toBe("plain");
    expect(readSessionCookie("session=plain", true)).toBeUndefined();
    expect(readSessionCookie("__Host-session=secure", false)).toBeUndefined();
  });

  it.each(["", "session", "session=", "xsession=1", "sessions=1", "a=session=1", ";;;=;", "session =", "\0=1"])(
    "is absent from the cookie header %j",
    (cookie) => {
      expect(readSessionToken({ cookie }, false)).toBeUndefined();
    },
  );

  it("is absent without headers", () => {
    expect(readSessionToken({}, true)).toBeUndefined();
  });
});

describe("the session cookie", () => {
  it("is bound to the host and to https, hidden from scripts, and lasts as told", () => {
    expect(sessionCookie({ token: "abc", maxAgeMs: 90_500, isSecure: true })).toBe(
      "__Host-session=abc; Path=/; Max-Age=90; HttpOnly; SameSite=Lax; Secure",
    );
  });

  it("drops prefix and Secure over plain http, where browsers would refuse it", () => {
    expect(sessionCookie({ token: "abc", maxAgeMs: 1_000, isSecure: false })).toBe(
      "session=abc; Path=/; Max-Age=1; HttpOnly; SameSite=Lax",
    );
  });

  it("without a token deletes itself", () => {
    expect(sessionCookie({ isSecure: true })).toContain("__Host-session=; Path=/; Max-Age=0;");
  });

  it("reads back what it wrote", () => {
    for (const isSecure of [true, false]) {
      const [pair] = sessionCookie({ token: "abc-_1", maxAgeMs: 1, isSecure }).split(";");
      expect(readSessionCookie(pair, isSecure)).toBe("abc-_1");
    }
  });
});
