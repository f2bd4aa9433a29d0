import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { address, safePath } from "../../src/ui/address.ts";
import { avatarAddress } from "../../src/ui/avatar.ts";

describe("safePath", () => {
  test.each(["/", "/editor", "/article/a-b#comments", "/?tag=x&page=2", "/profile/J%C3%B6rg"])("keeps %s", (path) => {
    expect(safePath(path)).toBe(path);
  });

  test.each([
    "",
    "editor",
    "//evil.example",
    "/\\evil.example",
    "/.//evil.example",
    "/a/..//evil.example",
    "/%2e//evil.example",
    "https://evil.example/",
    "javascript:alert(1)",
    "/\t/evil.example",
    "/\n/evil.example",
    "/a\r\nset-cookie: x",
    "\t//evil.example",
    `/${"a".repeat(1_001)}`,
  ])("refuses %j", (path) => {
    expect(safePath(path)).toBeUndefined();
  });

  test("whatever it lets through stays on the site and fits into a header", () => {
    const piece = fc.constantFrom(
      "/",
      "\\",
      ".",
      "..",
      "//",
      "evil.example",
      ":",
      "@",
      "%2f",
      "%5c",
      "?",
      "#",
      "\t",
      "é",
      "http:",
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 8 }), (pieces) => {
        const path = safePath(`/${pieces.join("")}`);
        if (path === undefined) return;
        expect(new URL(path, "https://conduit.example/x/y").origin).toBe("https://conduit.example");
        expect(path).toMatch(/^\/(?!\/)[\x21-\x7e]*$/);
      }),
      { numRuns: 2_000 },
    );
  });
});

test("names and tags of any text make one segment of a path or one value of a query", () => {
  expect(address.profile("a b/c?d#e")).toBe("/profile/a%20b%2Fc%3Fd%23e");
  expect(address.tag("c++ & c#")).toBe("/?tag=c%2B%2B%20%26%20c%23");
  expect(address.profile("\ud800")).toBe("/profile/%EF%BF%BD");
  expect(address.login("/editor")).toBe("/login?next=%2Feditor");
  expect(address.login("/")).toBe("/login");
});

describe("avatarAddress", () => {
  test("shows https pictures as they are", () => {
    expect(avatarAddress({ username: "a", image: "https://a.example/b.jpg" })).toBe("https://a.example/b.jpg");
  });

  test.each(["", "http://a.example/b.jpg", "javascript:alert(1)", "data:text/html,x", "https://", "https://a b"])(
    "draws a picture in place of %j",
    (image) => {
      expect(avatarAddress({ username: "a", image })).toMatch(/^data:image\/svg\+xml,/);
    },
  );

  test("draws the same for the same name, escaped, with up to two initials", () => {
    const of = (username: string) => decodeURIComponent(avatarAddress({ username, image: "" }));
    expect(of("ada lovelace")).toBe(of("ada lovelace"));
    expect(of("ada lovelace")).not.toBe(of("alan lowell"));
    expect(of("ada lovelace")).toContain(">AL</text>");
    expect(of("<script>")).toContain(">S</text>");
    expect(of("\ud800")).toContain(">?</text>");
  });
});
