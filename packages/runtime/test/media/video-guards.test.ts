/** Videos made to read what is not theirs, to reach the network, or to cost too much. */
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ffmpegVideos } from "../../src/media/drivers/ffmpeg-video.ts";
import { isPermanentMediaError } from "../../src/media/media.ts";
import type { VideoLimits } from "../../src/media/video.ts";
import { withForeignTrack } from "./support/foreign-track.ts";
import { eventually, ffmpeg, inspect, processesWith, reason, source, tools } from "./support/videos.ts";

const h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"];

describe.skipIf(tools === undefined)(`hostile videos${reason}`, () => {
  let inputs: string;
  let work: string;
  let server: Server;
  let address: string;
  let connections = 0;
  const input = (name: string) => join(inputs, name);

  beforeAll(async () => {
    inputs = await mkdtemp(join(tmpdir(), "rungs-test-guards-"));
    await ffmpeg(...source("320x180", 1), ...h264, "-c:a", "aac", input("plain.mp4"));
    await ffmpeg("-i", input("plain.mp4"), "-c", "copy", "-f", "mpegts", input("segment.ts"));
    await ffmpeg("-stream_loop", "2999", "-i", input("plain.mp4"), "-c", "copy", input("long.mp4"));
    server = createServer(async (_request, response) => response.end(await readFile(input("segment.ts"))));
    server.on("connection", () => connections++);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await rm(inputs, { recursive: true, force: true });
  });
  beforeEach(async () => {
    work = await mkdtemp(join(inputs, "work-"));
    connections = 0;
  });

  async function refused(path: string, limits: Partial<VideoLimits> = {}): Promise<unknown> {
    // Without unshare, so that what is tried here is our own guard and not the system's.
    const videos = ffmpegVideos({ directory: work, limits, withoutNetwork: false });
    const errors = await Promise.all(
      [videos.probe(path), videos.makePoster(path, { format: "webp" }), videos.makeRendition(path)].map((made) =>
        made.then(
          (result) => expect.unreachable(`made ${JSON.stringify(result)}`),
          (error: unknown) => error,
        ),
      ),
    );
    expect(await readdir(work)).toEqual([]);
    expect(errors.map(isPermanentMediaError)).toEqual([true, true, true]);
    return errors[0];
  }

  const playlist = (target: string) =>
    `#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n${target}\n#EXT-X-ENDLIST\n`;

  it("are a danger to an ffprobe that may use the network: it opens the address", async () => {
    await writeFile(input("bait.m3u8"), playlist(`${address}/segment.ts`));
    const args = ["-v", "error", "-protocol_whitelist", "file,http,tcp", input("bait.m3u8")];
    await new Promise((resolve) => execFile(tools?.ffprobePath as string, args, resolve));
    expect(connections).toBeGreaterThan(0);
  });

  it.each<readonly [string, string, () => string]>([
    ["an HLS playlist of an address", "hls.mp4", () => playlist(`${address}/segment.ts`)],
    ["an HLS playlist of a file", "hls-file.mp4", () => playlist("file:///etc/passwd")],
    ["an HLS playlist of a real segment beside it", "hls-beside.mp4", () => playlist("segment.ts")],
    ["an HLS playlist with its own name", "hls.m3u8", () => playlist(`${address}/segment.ts`)],
    ["a concat file of an address", "concat.mp4", () => `ffconcat version 1.0\nfile '${address}/segment.ts'\n`],
    ["a concat file of a file", "concat-file.mp4", () => "ffconcat version 1.0\nfile file:///etc/passwd\n"],
    [
      "a DASH manifest",
      "dash.mp4",
      () =>
        `<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>${address}/segment.ts</BaseURL></Representation></AdaptationSet></Period></MPD>`,
    ],
    [
      "a session description",
      "sdp.mp4",
      () =>
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
    ["a QuickTime link", "link.mov", () => `RTSPtext\r\nrtsp://${address.slice(7)}/x\r\n`],
    ["subtitles", "subtitles.mp4", () => "1\n00:00:00,000 --> 00:00:01,000\nhello\n"],
    ["text", "text.mp4", () => "just words"],
    ["nothing", "empty.mp4", () => ""],
  ])("such as %s are refused for good, and nobody is asked for anything", async (_what, name, text) => {
    await writeFile(input(name), text());
    expect(await refused(input(name))).toMatchObject({ code: "MEDIA_UNREADABLE" });
    expect(connections).toBe(0);
  });

  it("such as an MP4 whose track lies in another file do not get at that file", async () => {
    await ffmpeg(...source("320x180", 1, false), ...h264, "-f", "mov", input("own.mov"));
    const foreign = withForeignTrack(await readFile(input("own.mov")), "other.mov");
    // Its own data is blanked: pictures can only come out of the other file.
    await writeFile(input("foreign.mov"), foreign);
    await ffmpeg("-i", input("own.mov"), "-c", "copy", input("other.mov"));
    const stillOf = (...args: string[]) =>
      ffmpeg(...args, "-i", input("foreign.mov"), "-frames:v", "1", "-f", "image2pipe", input("still.jpg"));
    await stillOf("-enable_drefs", "1");
    expect((await readFile(input("still.jpg"))).length).toBeGreaterThan(1_000);
    const videos = ffmpegVideos({ directory: work });
    const made = [
      videos.makePoster(input("foreign.mov"), { format: "webp" }),
      videos.makeRendition(input("foreign.mov")),
    ];
    for (const each of made) await expect(each).rejects.toMatchObject({ code: "MEDIA_UNREADABLE" });
  });

  it("such as sound with a cover are no videos", async () => {
    await ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x64:duration=0.04", "-frames:v", "1", input("cover.jpg"));
    const cover = ["-map", "0:a", "-map", "1:v", "-c:v", "mjpeg", "-disposition:v", "attached_pic", "-c:a", "aac"];
    await ffmpeg("-f", "lavfi", "-i", "sine=duration=1", "-i", input("cover.jpg"), ...cover, input("sound.m4a"));
    expect((await inspect(input("sound.m4a"))).streams.some(({ codec_type }) => codec_type === "video")).toBe(true);
    expect(await refused(input("sound.m4a"))).toMatchObject({ message: expect.stringContaining("no video") });
  });

  it("such as one that was cut short are refused for good", async () => {
    await ffmpeg("-i", input("plain.mp4"), "-c", "copy", input("cut.mp4"));
    await truncate(input("cut.mp4"), 5_000);
    expect(await refused(input("cut.mp4"))).toMatchObject({ code: "MEDIA_UNREADABLE" });
  });

  it.each<readonly [string, Partial<VideoLimits>]>([
    ["bytes", { inputBytesMax: 1_000 }],
    ["pixels", { pixelsMax: 320 * 180 - 1 }],
    ["playing time", { durationMsMax: 900 }],
    ["streams", { streamsMax: 1 }],
  ])("with too much %s are refused for good", async (what, limits) => {
    expect(await refused(input("plain.mp4"), limits)).toMatchObject({
      code: "MEDIA_LIMIT_EXCEEDED",
      message: expect.stringContaining(`exceeds the limit on ${what}`),
    });
  });

  it.each<readonly [string, Partial<VideoLimits>, object]>([
    [
      "processor time",
      { cpuMsMax: 1_000 },
      { code: "MEDIA_LIMIT_EXCEEDED", message: expect.stringContaining("on processor time: used up; limit 1000 ms") },
    ],
    [
      "room for what is made",
      { outputBytesMax: 100_000 },
      { code: "MEDIA_LIMIT_EXCEEDED", message: expect.stringContaining("limit 100000 bytes") },
    ],
    ["time, which may be the machine's fault,", { timeLimitMs: 400 }, { code: "MEDIA_TIMEOUT", canRetry: true }],
  ])("that need too much %s are stopped, and nothing is left of them", async (_what, change, expected) => {
    const limits = { durationMsMax: 3_600_000, ...change };
    const error: unknown = await ffmpegVideos({ directory: work, limits })
      .makeRendition(input("long.mp4"))
      .catch((raised: unknown) => raised);
    expect(error).toMatchObject(expected);
    expect(await readdir(work)).toEqual([]);
    expect(await processesWith(work)).toEqual([]);
  });

  it("wait in a bounded queue, where an abort takes them out, and one more is turned away", async () => {
    const videos = ffmpegVideos({ directory: work, queueMax: 1, limits: { durationMsMax: 3_600_000 } });
    const [first, second] = [new AbortController(), new AbortController()];
    const running = videos.makeRendition(input("long.mp4"), { signal: first.signal });
    const waiting = videos.makeRendition(input("long.mp4"), { signal: second.signal });
    const failures = Promise.allSettled([running, waiting]);
    await expect(videos.makeRendition(input("long.mp4"))).rejects.toMatchObject({ code: "OVERLOADED", canRetry: true });
    await eventually("ffmpeg runs", async () => (await processesWith(`file:${work}`)).length > 0);
    second.abort(new Error("second"));
    first.abort(new Error("first"));
    expect((await failures).map((each) => each.status === "rejected" && each.reason.message)).toEqual([
      "first",
      "second",
    ]);
    expect(await readdir(work)).toEqual([]);
    expect(await processesWith(work)).toEqual([]);
  });
});
