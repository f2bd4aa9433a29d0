/** Conditional requests and byte ranges, by the letter of RFC 9110. */
import { describe, expect, it } from "vitest";
import { answerRange, type RangeRequest } from "../../src/storage/http-range.ts";

const modifiedAt = new Date("2030-05-06T07:08:09.500Z");
const object = { sizeBytes: 1_000, etag: '"v1"', modifiedAt };
const httpDate = "Mon, 06 May 2030 07:08:09 GMT";
const answer = (request: Partial<RangeRequest>, of = object) => answerRange({ method: "GET", ...request }, of);
const part = (start: number, end: number) => ({ status: 206, range: { start, end } });

describe("a range", () => {
  it.each([
    ["bytes=0-0", part(0, 0)],
    ["bytes=0-499", part(0, 499)],
    ["bytes=500-", part(500, 999)],
    ["bytes=999-", part(999, 999)],
    ["bytes=500-5000", part(500, 999)],
    ["bytes=-1", part(999, 999)],
    ["bytes=-500", part(500, 999)],
    ["bytes=-5000", part(0, 999)],
    ["Bytes=1-2", part(1, 2)],
    [" bytes=1-2 ", part(1, 2)],
  ])("%j is given", (range, expected) => expect(answer({ range })).toEqual(expected));

  it.each(["bytes=1000-", "bytes=1000-2000", "bytes=-0", "bytes=999999999999999-"])("%j is refused", (range) =>
    expect(answer({ range })).toEqual({ status: 416 }),
  );

  it.each([
    "bytes=",
    "bytes=-",
    "bytes=5-2",
    "bytes=a-b",
    "bytes=0-1,5-9",
    "bytes=--5",
    "bytes=1-2-3",
    "bytes=0x1-2",
    "items=0-1",
    "0-1",
    "bytes=9999999999999999-",
    "",
  ])("%j is ignored: the whole is given", (range) => expect(answer({ range })).toEqual({ status: 200 }));

  it("of an empty object is none", () => {
    const empty = { ...object, sizeBytes: 0 };
    expect(answer({ range: "bytes=0-" }, empty)).toEqual({ status: 416 });
    expect(answer({ range: "bytes=-1" }, empty)).toEqual({ status: 416 });
    expect(answer({}, empty)).toEqual({ status: 200 });
  });

  it("is ignored for HEAD", () => expect(answer({ method: "HEAD", range: "bytes=0-1" })).toEqual({ status: 200 }));
});

describe("If-Range", () => {
  const range = "bytes=0-1";
  it.each([
    ['"v1"', part(0, 1)],
    [' "v1" ', part(0, 1)],
    ['W/"v1"', { status: 200 }],
    ['"v0"', { status: 200 }],
    [httpDate, part(0, 1)],
    ["Mon, 06 May 2030 07:08:08 GMT", { status: 200 }],
    ["Mon, 06 May 2030 07:08:10 GMT", { status: 200 }],
    ["nonsense", { status: 200 }],
  ])("%j", (ifRange, expected) => expect(answer({ range, ifRange })).toEqual(expected));

  it("without a range means nothing", () => expect(answer({ ifRange: '"v1"' })).toEqual({ status: 200 }));
});

describe("preconditions", () => {
  it.each([
    [{ ifNoneMatch: '"v1"' }, 304],
    [{ ifNoneMatch: 'W/"v1"' }, 304],
    [{ ifNoneMatch: '"v0", "v1"' }, 304],
    [{ ifNoneMatch: '"v0","with, comma", W/"v1"' }, 304],
    [{ ifNoneMatch: "*" }, 304],
    [{ ifNoneMatch: '"v0"' }, 200],
    [{ ifNoneMatch: "v1" }, 200],
    [{ ifNoneMatch: '"v0"', ifModifiedSince: httpDate }, 200],
    [{ ifModifiedSince: httpDate }, 304],
    [{ ifModifiedSince: "Mon, 06 May 2030 07:08:10 GMT" }, 304],
    [{ ifModifiedSince: "Mon, 06 May 2030 07:08:08 GMT" }, 200],
    [{ ifModifiedSince: "nonsense" }, 200],
    [{ ifMatch: '"v1"' }, 200],
    [{ ifMatch: "*" }, 200],
    [{ ifMatch: 'W/"v1"' }, 412],
    [{ ifMatch: '"v0"' }, 412],
    [{ ifMatch: '"v0"', ifNoneMatch: '"v1"' }, 412],
  ])("%j give %i", (request, status) => expect(answer(request).status).toBe(status));

  it("come before ranges", () => {
    expect(answer({ range: "bytes=0-1", ifNoneMatch: '"v1"' })).toEqual({ status: 304 });
    expect(answer({ range: "bytes=5000-", ifNoneMatch: '"v1"' })).toEqual({ status: 304 });
    expect(answer({ range: "bytes=5000-", ifRange: '"v0"' })).toEqual({ status: 200 });
  });
});
