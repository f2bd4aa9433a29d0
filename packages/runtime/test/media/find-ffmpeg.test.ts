/** Finding ffmpeg, also when it is installed later. */
import { chmod, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ffmpegVideos } from "../../src/media/drivers/ffmpeg-video.ts";
import { findFfmpeg } from "../../src/media/drivers/find-ffmpeg.ts";
import { ffmpeg, reason, source, tools } from "./support/videos.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-test-find-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function install(name: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, "#!/bin/sh\n");
  await chmod(path, 0o755);
  return path;
}

describe("ffmpeg", () => {
  it.each([
    ["linux", "apt-get install ffmpeg"],
    ["darwin", "brew install ffmpeg"],
    ["win32", "WSL"],
  ] as const)(
    "that is missing on %s is worth a retry, and the message says what to do: %s",
    async (platform, advice) => {
      await expect(findFfmpeg({ environment: { PATH: "" }, platform })).rejects.toMatchObject({
        code: "MEDIA_TOOL_MISSING",
        canRetry: true,
        message: expect.stringContaining(advice),
      });
    },
  );

  it("is found once it and ffprobe are on the path, and lost when one is removed", async () => {
    const environment = { PATH: ["", "relative", folder].join(delimiter) };
    const isFound = () =>
      findFfmpeg({ environment, platform: "linux" }).then(
        () => true,
        () => false,
      );
    expect(await isFound()).toBe(false);
    const ffmpegPath = await install("ffmpeg");
    expect(await isFound()).toBe(false);
    const ffprobePath = await install("ffprobe");
    expect(await findFfmpeg({ environment, platform: "linux" })).toEqual({ ffmpegPath, ffprobePath });
    await chmod(ffprobePath, 0o644);
    // Root may run nothing that has no x either.
    expect(await isFound()).toBe(false);
    await chmod(ffprobePath, 0o755);
    await rm(ffmpegPath);
    expect(await isFound()).toBe(false);
  });

  it("is the one that RUNGS_FFMPEG names, or none", async () => {
    const ffmpegPath = await install("ffmpeg");
    const ffprobePath = await install("ffprobe");
    const find = (named: string) =>
      findFfmpeg({ environment: { RUNGS_FFMPEG: named, PATH: folder }, platform: "linux" });
    expect(await find(ffmpegPath)).toEqual({ ffmpegPath, ffprobePath });
    for (const wrong of ["/nowhere/ffmpeg", "ffmpeg"])
      await expect(find(wrong)).rejects.toMatchObject({
        message: expect.stringContaining(`RUNGS_FFMPEG is "${wrong}"`),
      });
  });
});

describe.skipIf(tools === undefined)(`videos without ffmpeg${reason}`, () => {
  it("fail until it is installed, then work without a restart", async () => {
    const place = await mkdtemp(join(folder, "path-"));
    const work = await mkdtemp(join(folder, "work-"));
    const video = join(folder, "video.mp4");
    await ffmpeg(...source("64x48", 1, false), "-c:v", "libx264", "-pix_fmt", "yuv420p", video);
    const videos = ffmpegVideos({ directory: work, find: () => findFfmpeg({ environment: { PATH: place } }) });
    for (const call of [
      () => videos.probe(video),
      () => videos.makePoster(video, { format: "webp" }),
      () => videos.makeRendition(video),
    ])
      await expect(call()).rejects.toMatchObject({ code: "MEDIA_TOOL_MISSING", canRetry: true });
    expect(await readdir(work)).toEqual([]);
    await symlink(tools?.ffmpegPath as string, join(place, "ffmpeg"));
    await symlink(tools?.ffprobePath as string, join(place, "ffprobe"));
    expect((await videos.probe(video)).videoCodec).toBe("h264");
  });
});
