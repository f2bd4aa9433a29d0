/** Posters and renditions of videos, by the system's ffmpeg. */
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ffmpegVideos } from "../../src/media/drivers/ffmpeg-video.ts";
import { ffmpeg, inspect, processesWith, reason, source, tools } from "./support/videos.ts";

describe.skipIf(tools === undefined)(`videos by ffmpeg${reason}`, () => {
  let inputs: string;
  let work: string;
  const input = (name: string) => join(inputs, name);

  beforeAll(async () => {
    inputs = await mkdtemp(join(tmpdir(), "rungs-test-videos-"));
    const h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"];
    const place = ["-metadata", "location=+51.5+007.0/", "-metadata", "title=mine"];
    await ffmpeg(...source("1920x1080", 1), ...h264, "-c:a", "aac", ...place, input("large.mp4"));
    await ffmpeg(...source("321x181", 1, false), "-c:v", "mjpeg", "-pix_fmt", "yuvj444p", input("odd.avi"));
    await ffmpeg(...source("320x180", 1, false), ...h264, input("plain.mp4"));
    await ffmpeg("-i", input("plain.mp4"), "-c", "copy", "-metadata:s:v", "rotate=90", input("turned.mp4"));
    await ffmpeg(...source("320x180", 1, false), "-vf", "setsar=2/1", ...h264, input("wide-pixels.mp4"));
    // A live recording, as browsers make them: nobody went back to write the duration.
    await ffmpeg(
      ...source("320x180", 2),
      "-c:v",
      "libvpx",
      "-deadline",
      "realtime",
      "-live",
      "1",
      input("recorded.webm"),
    );
    await ffmpeg("-stream_loop", "99", "-i", input("large.mp4"), "-c", "copy", input("long.mp4"));
  });
  afterAll(() => rm(inputs, { recursive: true, force: true }));
  beforeEach(async () => {
    work = await mkdtemp(join(inputs, "work-"));
  });

  describe("a probe", () => {
    it("tells size, duration, rate and codecs", async () => {
      expect(await ffmpegVideos({ directory: work }).probe(input("large.mp4"))).toEqual({
        ...{ durationMs: 1_000, widthPx: 1_920, heightPx: 1_080, frameRate: 25, container: "mov,mp4,m4a,3gp,3g2,mj2" },
        ...{ videoCodec: "h264", audioCodec: "aac", videoStream: 0, audioStream: 1 },
      });
      expect(await readdir(work)).toEqual([]);
    });

    it("tells the size as shown: turned upright, with square pixels", async () => {
      const videos = ffmpegVideos({ directory: work });
      expect(await videos.probe(input("turned.mp4"))).toMatchObject({ widthPx: 180, heightPx: 320 });
      expect(await videos.probe(input("wide-pixels.mp4"))).toMatchObject({ widthPx: 640, heightPx: 180 });
    });
  });

  describe("a rendition", () => {
    it("is H.264 and AAC of at most 720 lines that plays before it is loaded whole, without the place it was filmed", async () => {
      const shares: number[] = [];
      const output = await ffmpegVideos({ directory: work }).makeRendition(input("large.mp4"), {
        onProgress: (share) => shares.push(share),
      });
      const [file] = output.files;
      expect(file).toMatchObject({ widthPx: 1_280, heightPx: 720, contentType: "video/mp4" });
      expect(file.durationMs).toBeGreaterThan(950);
      expect(file.durationMs).toBeLessThan(1_100);
      const { streams, format } = await inspect(file.path);
      expect(streams.map(({ codec_name, width, height, pix_fmt }) => [codec_name, width, height, pix_fmt])).toEqual([
        ["h264", 1_280, 720, "yuv420p"],
        ["aac", undefined, undefined, undefined],
      ]);
      expect(Number(format["size"])).toBe(file.sizeBytes);
      const bytes = await readFile(file.path);
      expect(bytes.indexOf("moov")).toBeGreaterThan(0);
      expect(bytes.indexOf("moov")).toBeLessThan(bytes.indexOf("mdat"));
      const before = (await inspect(input("large.mp4"))).format;
      expect(before).toMatchObject({ tags: { title: "mine", location: expect.stringContaining("51.5") } });
      expect(Object.keys(format["tags"] as object)).not.toEqual(expect.arrayContaining(["title"]));
      expect(Object.keys(format["tags"] as object).filter((tag) => tag.startsWith("location"))).toEqual([]);
      expect(shares).toEqual([...shares].sort((a, b) => a - b));
      expect([shares[0], shares.at(-1)]).toEqual([0, 1]);
      await output.remove();
      expect(await readdir(work)).toEqual([]);
    });

    it.each([
      ["odd.avi", [320, 180]],
      ["turned.mp4", [180, 320]],
      ["wide-pixels.mp4", [640, 180]],
    ])("of the silent %s keeps its shape, with even sides", async (name, size) => {
      const output = await ffmpegVideos({ directory: work }).makeRendition(input(name));
      const { streams } = await inspect(output.files[0].path);
      expect(
        streams.map(({ codec_name, width, height, sample_aspect_ratio }) => [
          codec_name,
          width,
          height,
          sample_aspect_ratio,
        ]),
      ).toEqual([["h264", ...size, "1:1"]]);
      expect(streams[0]?.["side_data_list"]).toBeUndefined();
    });

    it("of a recording without a duration has one", async () => {
      const videos = ffmpegVideos({ directory: work });
      expect((await videos.probe(input("recorded.webm"))).durationMs).toBeUndefined();
      const { files } = await videos.makeRendition(input("recorded.webm"));
      expect(Math.abs(files[0].durationMs - 2_000)).toBeLessThan(150);
      // Nothing tells its length beforehand, so the limit is held while it is read.
      const strict = ffmpegVideos({ directory: work, limits: { durationMsMax: 500 } });
      await expect(strict.makeRendition(input("recorded.webm"))).rejects.toMatchObject({
        code: "MEDIA_LIMIT_EXCEEDED",
      });
    });

    it("reports its progress on the way", async () => {
      const shares: number[] = [];
      const stop = new AbortController();
      const made = ffmpegVideos({ directory: work }).makeRendition(input("long.mp4"), {
        heightPxMax: 180,
        signal: stop.signal,
        onProgress: (share) => {
          shares.push(share);
          if (shares.filter((each) => each > 0 && each < 1).length === 2) stop.abort(new Error("seen enough"));
        },
      });
      await expect(made).rejects.toThrow("seen enough");
      expect(shares).toEqual([...new Set(shares)].sort((a, b) => a - b));
      expect(shares.at(-1)).toBeLessThan(1);
      expect(await readdir(work)).toEqual([]);
      expect(await processesWith(work)).toEqual([]);
    });
  });

  it("a listener of progress that fails ends the rendition with its error, and not the process", async () => {
    const onProgress = (share: number) => {
      if (share > 0) throw new Error("the listener failed");
    };
    const made = ffmpegVideos({ directory: work }).makeRendition(input("long.mp4"), { onProgress });
    await expect(made).rejects.toThrow("the listener failed");
    expect(await readdir(work)).toEqual([]);
    expect(await processesWith(work)).toEqual([]);
  });

  describe("a poster", () => {
    it.each(["webp", "jpeg"] as const)("is one upright %s picture within its box", async (format) => {
      const output = await ffmpegVideos({ directory: work }).makePoster(input("turned.mp4"), {
        format,
        heightPxMax: 160,
      });
      const [file] = output.files;
      expect(file).toMatchObject({ widthPx: 90, heightPx: 160, contentType: `image/${format}` });
      expect(await sharp(file.path).metadata()).toMatchObject({ format, width: 90, height: 160 });
      expect((await sharp(file.path).stats()).channels.some(({ stdev }) => stdev > 20)).toBe(true);
      await output.remove();
      expect(await readdir(work)).toEqual([]);
    });

    it("past the end, or of a recording without a duration, shows the start", async () => {
      const videos = ffmpegVideos({ directory: work });
      const late = await videos.makePoster(input("plain.mp4"), { format: "webp", atMs: 60_000 });
      expect(late.files[0].sizeBytes).toBeGreaterThan(200);
      const recorded = await videos.makePoster(input("recorded.webm"), { format: "webp" });
      expect(recorded.files[0].sizeBytes).toBeGreaterThan(200);
    });
  });

  it("works in a folder, and on a file, with a name made to confuse", async () => {
    const odd = join(work, "-i http:%d 'x' $(id);|");
    await mkdir(odd);
    await ffmpeg("-i", input("plain.mp4"), "-c", "copy", "-f", "mp4", `file:${odd}/-y,concat:a|b.mp4`);
    const { files } = await ffmpegVideos({ directory: odd }).makePoster(`${odd}/-y,concat:a|b.mp4`, { format: "jpeg" });
    expect(await sharp(files[0].path).metadata()).toMatchObject({ width: 320, height: 180 });
  });

  it.each([
    ["an odd bound", { heightPxMax: 0.5 }],
    ["a rate of nothing", { videoKbitsMax: 0 }],
    ["no frames", { frameRateMax: Number.NaN }],
  ])("refuses %s as misconfigured", async (_what, options) => {
    await expect(ffmpegVideos({ directory: work }).makeRendition(input("plain.mp4"), options)).rejects.toMatchObject({
      code: "CONFIG_INVALID",
    });
  });
});
