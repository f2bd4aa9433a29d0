/** Pictures from untrusted files, by sharp. */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { crc32, deflateSync } from "node:zlib";
import sharp, { type Sharp } from "sharp";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { sharpImages } from "../../src/media/drivers/sharp-images.ts";
import type { ImageRendition } from "../../src/media/image.ts";
import { isPermanentMediaError } from "../../src/media/media.ts";

const small: ImageRendition = { name: "small", widthPxMax: 64, heightPxMax: 64, fit: "inside", format: "webp" };

let inputs: string;
let work: string;
const input = (name: string) => join(inputs, name);
const left = () => readdir(work);

beforeAll(async () => {
  inputs = await mkdtemp(join(tmpdir(), "rungs-test-images-"));
});
afterAll(() => rm(inputs, { recursive: true, force: true }));
beforeEach(async () => {
  work = await mkdtemp(join(inputs, "work-"));
});

/** Left half red, right half blue. */
async function twoColours(width: number, height: number): Promise<Sharp> {
  const half = { width: Math.floor(width / 2), height, channels: 3 as const };
  const red = await sharp({ create: { ...half, background: "#f00" } })
    .png()
    .toBuffer();
  return sharp({ create: { width, height, channels: 3, background: "#00f" } }).composite([
    { input: red, left: 0, top: 0 },
  ]);
}

async function colourAt(path: string, left: number, top: number): Promise<string> {
  const { data } = await sharp(path)
    .removeAlpha()
    .extract({ left, top, width: 1, height: 1 })
    .raw()
    .toBuffer({ resolveWithObject: true });
  const [red = 0, , blue = 0] = data;
  return red - blue > 80 ? "red" : blue - red > 80 ? "blue" : `${[...data]}`;
}

/** A PNG whose header claims any size; its data is a few zero bytes. */
function pngClaiming(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), data]);
    const frame = Buffer.alloc(8);
    frame.writeUInt32BE(data.length, 0);
    frame.writeUInt32BE(crc32(body), 4);
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
  };
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, 2, 0, 0, 0], 8);
  const parts = [
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(Buffer.alloc(4_096))),
    chunk("IEND", Buffer.alloc(0)),
  ];
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...parts]);
}

describe("renditions of an image", () => {
  it("are WebP and AVIF within their boxes, with true sizes, and are removed as a whole", async () => {
    await (await twoColours(800, 400)).jpeg().toFile(input("wide.jpg"));
    const output = await sharpImages({ directory: work }).render(input("wide.jpg"), [
      { name: "inside", widthPxMax: 200, heightPxMax: 200, fit: "inside", format: "webp" },
      { name: "cover", widthPxMax: 120, heightPxMax: 120, fit: "cover", format: "avif", quality: 40 },
    ]);
    expect(
      output.files.map(({ name, widthPx, heightPx, contentType }) => [name, widthPx, heightPx, contentType]),
    ).toEqual([
      ["inside", 200, 100, "image/webp"],
      ["cover", 120, 120, "image/avif"],
    ]);
    for (const file of output.files) {
      const found = await sharp(file.path).metadata();
      expect([found.width, found.height, found.space]).toEqual([file.widthPx, file.heightPx, "srgb"]);
      expect((await sharp(file.path).toBuffer()).length).toBeGreaterThan(0);
      expect(file.sizeBytes).toBeGreaterThan(100);
    }
    await output.remove();
    await output.remove();
    expect(await left()).toEqual([]);
  });

  it("are never enlarged; a cut keeps the asked-for shape", async () => {
    await (await twoColours(300, 100)).png().toFile(input("low.png"));
    const { files } = await sharpImages({ directory: work }).render(input("low.png"), [
      { name: "inside", widthPxMax: 900, heightPxMax: 900, fit: "inside", format: "webp" },
      { name: "square", widthPxMax: 200, heightPxMax: 200, fit: "cover", format: "webp" },
    ]);
    expect(files.map(({ widthPx, heightPx }) => [widthPx, heightPx])).toEqual([
      [300, 100],
      [100, 100],
    ]);
  });

  it("are upright and without EXIF, so without GPS", async () => {
    const jpeg = (await twoColours(400, 200)).jpeg().withExif({
      IFD0: { Copyright: "someone" },
      IFD3: { GPSLatitudeRef: "N", GPSLatitude: "51/1 30/1 0/1", GPSLongitudeRef: "E", GPSLongitude: "7/1 0/1 0/1" },
    });
    await jpeg.withMetadata({ orientation: 6 }).toFile(input("turned.jpg"));
    const before = await sharp(input("turned.jpg")).metadata();
    expect(before.orientation).toBe(6);
    expect(before.exif?.includes("someone")).toBe(true);

    const { files } = await sharpImages({ directory: work }).render(input("turned.jpg"), [
      small,
      { name: "cover", widthPxMax: 100, heightPxMax: 200, fit: "cover", format: "avif" },
    ]);
    expect(files.map(({ widthPx, heightPx }) => [widthPx, heightPx])).toEqual([
      [32, 64],
      [100, 200],
    ]);
    // Turned clockwise by 90 degrees, the left half is on top.
    for (const { path, widthPx, heightPx } of files) {
      const { exif, xmp, icc, iptc, orientation } = await sharp(path).metadata();
      expect([exif, xmp, icc, iptc, orientation]).toEqual(Array(5).fill(undefined));
      expect(await colourAt(path, widthPx >> 1, 4)).toBe("red");
      expect(await colourAt(path, widthPx >> 1, heightPx - 5)).toBe("blue");
    }
  });

  it("are in sRGB, with eight bits, whatever the colours were", async () => {
    await (await twoColours(60, 40)).toColourspace("cmyk").withIccProfile("cmyk").jpeg().toFile(input("press.jpg"));
    await (await twoColours(60, 40)).toColourspace("rgb16").withIccProfile("p3").png().toFile(input("deep.png"));
    expect((await sharp(input("press.jpg")).metadata()).space).toBe("cmyk");
    expect(await sharp(input("deep.png")).metadata()).toMatchObject({ depth: "ushort", icc: expect.anything() });
    for (const name of ["press.jpg", "deep.png"]) {
      const { files } = await sharpImages({ directory: work }).render(input(name), [
        small,
        { ...small, name: "other", format: "avif" },
      ]);
      for (const { path } of files) {
        const { space, depth, icc } = await sharp(path).metadata();
        expect([space, depth, icc]).toEqual(["srgb", "uchar", undefined]);
        expect(await colourAt(path, 4, 20)).toBe("red");
        expect(await colourAt(path, 55, 20)).toBe("blue");
      }
    }
  });

  it("of an animation show its first frame, or keep it moving when asked to", async () => {
    const frame = {
      width: 100,
      height: 80 * 5,
      channels: 3 as const,
      pageHeight: 80,
      noise: { type: "gaussian" as const },
    };
    const noise = await sharp({ create: { ...frame, background: "#888" } as never })
      .raw()
      .toBuffer();
    await sharp(noise, { raw: { width: 100, height: 400, channels: 3, pageHeight: 80 } })
      .gif()
      .toFile(input("moving.gif"));
    const { files } = await sharpImages({ directory: work }).render(input("moving.gif"), [
      small,
      { ...small, name: "moving", widthPxMax: 50, isAnimated: true },
    ]);
    expect(files.map(({ widthPx, heightPx }) => [widthPx, heightPx])).toEqual([
      [64, 51],
      [50, 40],
    ]);
    const pages = await Promise.all(files.map(async ({ path }) => (await sharp(path).metadata()).pages ?? 1));
    expect(pages).toEqual([1, 5]);
    await expect(
      sharpImages({ directory: work, limits: { pagesMax: 4 } }).render(input("moving.gif"), [small]),
    ).rejects.toMatchObject({ code: "MEDIA_LIMIT_EXCEEDED", message: expect.stringContaining("5; limit 4") });
    // An animation counts with all its frames.
    await expect(
      sharpImages({ directory: work, limits: { pixelsMax: 8_000 * 5 - 1 } }).render(input("moving.gif"), [
        { ...small, isAnimated: true },
      ]),
    ).rejects.toMatchObject({ code: "MEDIA_LIMIT_EXCEEDED" });
  });
});

describe("an image that is refused", () => {
  it("is one whose header claims too many pixels, before any is decoded", async () => {
    await writeFile(input("bomb.png"), pngClaiming(50_000, 50_000));
    const images = sharpImages({ directory: work });
    const bytesBefore = process.memoryUsage.rss();
    const error: unknown = await images.render(input("bomb.png"), [small]).catch((raised: unknown) => raised);
    expect(error).toMatchObject({ code: "MEDIA_LIMIT_EXCEEDED" });
    expect(isPermanentMediaError(error)).toBe(true);
    // Decoded it would take 7.5 GB.
    expect(process.memoryUsage.rss() - bytesBefore).toBeLessThan(200 * 1024 * 1024);
    expect(await left()).toEqual([]);
    // The same maker with a header that fits is damaged, not too large: the limit is what refused the bomb.
    await writeFile(input("short.png"), pngClaiming(2_000, 2_000));
    await expect(images.render(input("short.png"), [small])).rejects.toMatchObject({ code: "MEDIA_UNREADABLE" });
  });

  it("is one with too many bytes", async () => {
    await (await twoColours(40, 40)).png().toFile(input("padded.png"));
    await truncate(input("padded.png"), 5_000);
    const images = sharpImages({ directory: work, limits: { inputBytesMax: 4_999 } });
    await expect(images.render(input("padded.png"), [small])).rejects.toMatchObject({
      code: "MEDIA_LIMIT_EXCEEDED",
      message: "The file exceeds the limit on bytes: 5000; limit 4999.",
    });
  });

  it.each([
    ["text", "hello"],
    ["nothing", ""],
    [
      "an SVG that names another file",
      '<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    ],
    ["a JPEG's first bytes and no more", "\xff\xd8\xff\xe0 and so on and so on and so on"],
    ["a GIF's name and an SVG's body", "GIF89a<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'></svg>"],
  ])("is %s, whatever its name", async (_what, text) => {
    await writeFile(input("named.jpg"), Buffer.from(text, "latin1"));
    const error: unknown = await sharpImages({ directory: work })
      .render(input("named.jpg"), [small])
      .catch((raised: unknown) => raised);
    expect(error).toMatchObject({ code: "MEDIA_UNREADABLE" });
    expect(isPermanentMediaError(error)).toBe(true);
    expect(await left()).toEqual([]);
  });

  it("is one that was cut short", async () => {
    const noise = { type: "gaussian" as const, mean: 128, sigma: 60 };
    await sharp({ create: { width: 300, height: 300, channels: 3, background: "#888", noise } })
      .jpeg()
      .toFile(input("cut.jpg"));
    await truncate(input("cut.jpg"), 9_000);
    await expect(sharpImages({ directory: work }).render(input("cut.jpg"), [small])).rejects.toMatchObject({
      code: "MEDIA_UNREADABLE",
    });
  });

  it("is a folder or a link to a device, not a file", async () => {
    await symlink("/dev/zero", input("zero.png"));
    for (const path of [inputs, input("zero.png")])
      await expect(sharpImages({ directory: work }).render(path, [small])).rejects.toMatchObject({
        code: "MEDIA_UNREADABLE",
      });
  });
});

describe("work on images", () => {
  it("without sharp names the package and how to install it", async () => {
    const hideSharp = `
      import { registerHooks } from "node:module";
      registerHooks({ resolve(name, context, next) { return next(name === "sharp" ? "no-such-sharp" : name, context); } });
    `;
    const driver = new URL("../../src/media/drivers/sharp-images.ts", import.meta.url).href;
    const program = `
      const { sharpImages } = await import(${JSON.stringify(driver)});
      await sharpImages().render("any.png", []).catch(({ code, message }) => console.log(code, message));
    `;
    const hook = `data:text/javascript,${encodeURIComponent(hideSharp)}`;
    const { stdout } = await promisify(execFile)(process.execPath, [
      "--import",
      hook,
      "--input-type=module",
      "-e",
      program,
    ]);
    expect(stdout).toBe(
      "PACKAGE_MISSING Images need the package sharp, which cannot be loaded. Install it: npm install sharp\n",
    );
  });

  it("is not given up for good when the file is missing", async () => {
    const error: unknown = await sharpImages({ directory: work })
      .render(input("nowhere.jpg"), [small])
      .catch((raised: unknown) => raised);
    expect(error).toMatchObject({ code: "ENOENT" });
    expect(isPermanentMediaError(error)).toBe(false);
  });

  it.each([
    ["a name that leads elsewhere", { ...small, name: "../up" }],
    ["no width", { ...small, widthPxMax: 0 }],
    ["a quality above 100", { ...small, quality: 101 }],
    ["a moving AVIF", { ...small, format: "avif" as const, isAnimated: true }],
  ])("is refused as misconfigured for %s", async (_what, rendition) => {
    await expect(sharpImages({ directory: work }).render(input("any"), [rendition])).rejects.toMatchObject({
      code: "CONFIG_INVALID",
    });
  });

  it("is bounded: two run, the queue takes its number, one more is turned away, an aborted one leaves", async () => {
    await (await twoColours(1_200, 900)).png().toFile(input("busy.png"));
    const images = sharpImages({ directory: work, concurrencyMax: 2, queueMax: 2 });
    const stop = new AbortController();
    const render = (signal?: AbortSignal) =>
      images.render(input("busy.png"), [small], signal === undefined ? {} : { signal });
    await render().then((output) => output.remove());
    const running = [render(), render(), render()];
    const leaving = render(stop.signal);
    const turnedAway = render();
    await expect(turnedAway).rejects.toMatchObject({ code: "OVERLOADED", canRetry: true });
    stop.abort(new Error("no longer wanted"));
    await expect(leaving).rejects.toThrow("no longer wanted");
    for (const output of await Promise.all(running)) await output.remove();
    expect(await left()).toEqual([]);
  });

  it("ends at once on abort and leaves nothing behind once libvips is done", async () => {
    const images = sharpImages({ directory: work, concurrencyMax: 1 });
    await (await twoColours(1_600, 1_200)).png().toFile(input("long.png"));
    const many = Array.from({ length: 8 }, (_, index): ImageRendition => {
      return { name: `r${index}`, widthPxMax: 800, heightPxMax: 800, fit: "inside", format: "avif" };
    });
    const stop = new AbortController();
    const aborted = images.render(input("long.png"), many, { signal: stop.signal });
    const failure = expect(aborted).rejects.toThrow("stopped");
    while ((await left()).length === 0) await new Promise(setImmediate);
    stop.abort(new Error("stopped"));
    await failure;
    expect(await left()).toHaveLength(1);
    // The slot is held until the thread is done, so the next call's end comes after the clean-up.
    const next = await images.render(input("long.png"), [small]);
    await next.remove();
    expect(await left()).toEqual([]);
  });

  it("is broken off at its time limit and may be tried again", async () => {
    await (await twoColours(400, 300)).png().toFile(input("slow.png"));
    let nowMs = 0;
    const clock = { now: () => Date.now(), monotonic: () => (nowMs += 600) };
    const images = sharpImages({ directory: work, clock, limits: { timeLimitMs: 1_000 } });
    await expect(images.render(input("slow.png"), [small])).rejects.toMatchObject({
      code: "MEDIA_TIMEOUT",
      canRetry: true,
    });
    expect(await left()).toEqual([]);
  });

  it("deletes folders of killed processes, a day old, and no others", async () => {
    await (await twoColours(40, 30)).png().toFile(input("tiny.png"));
    const output = await sharpImages({ directory: work }).render(input("tiny.png"), [small]);
    const dayMs = 24 * 60 * 60_000;
    const clock = { now: () => Date.now() + dayMs + 60_000, monotonic: () => performance.now() };
    await writeFile(join(work, "not-ours"), "");
    const later = await sharpImages({ directory: work, clock }).render(input("tiny.png"), [small]);
    await later.remove();
    expect(await left()).toEqual(["not-ours"]);
    await output.remove();
  });
});
