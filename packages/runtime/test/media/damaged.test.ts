/** Files with bytes changed at random: each is either taken or refused for good, and nothing is left behind. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { seededRandom } from "../../src/kernel/random.ts";
import { ffmpegVideos } from "../../src/media/drivers/ffmpeg-video.ts";
import { sharpImages } from "../../src/media/drivers/sharp-images.ts";
import { isPermanentMediaError } from "../../src/media/media.ts";
import { ffmpeg, reason, source, tools } from "./support/videos.ts";

const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 32));
const title = `(RUNGS_TEST_SEED=${seed})`;

let folder: string;
let work: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "rungs-test-damaged-"));
  work = await mkdtemp(join(folder, "work-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** Tries `count` damaged copies; gives how many were taken. The first bytes stay, or every copy would be refused by them. */
async function tryDamaged(
  good: Buffer,
  count: number,
  attempt: (path: string) => Promise<{ remove(): Promise<void> }>,
) {
  const random = seededRandom(seed);
  let taken = 0;
  for (let number = 0; number < count; number++) {
    const bytes = Buffer.from(good);
    const changes = 1 + Math.floor(random.next() * 30);
    for (let change = 0; change < changes; change++)
      bytes[12 + Math.floor(random.next() * (bytes.length - 12))] = Math.floor(random.next() * 256);
    const path = join(folder, `damaged-${number}`);
    await writeFile(path, random.next() < 0.2 ? bytes.subarray(0, Math.floor(random.next() * bytes.length)) : bytes);
    try {
      const output = await attempt(path);
      taken++;
      await output.remove();
    } catch (error) {
      if (!isPermanentMediaError(error)) throw error;
    }
  }
  expect(await readdir(work)).toEqual([]);
  return taken;
}

describe(`damaged pictures ${title}`, () => {
  it.each(["jpeg", "png", "gif", "webp", "avif"] as const)(
    "of kind %s are taken or refused for good",
    async (format) => {
      const noise = { type: "gaussian" as const, mean: 128, sigma: 40 };
      const picture = sharp({ create: { width: 60, height: 40, channels: 3, background: "#888", noise } });
      const good = await picture.toFormat(format).toBuffer();
      const images = sharpImages({ directory: work, limits: { timeLimitMs: 10_000 } });
      const render = (path: string) =>
        images.render(path, [
          { name: "small", widthPxMax: 32, heightPxMax: 32, fit: "cover", format: "webp", isAnimated: true },
        ]);
      const path = join(folder, "good");
      await writeFile(path, good);
      await (await render(path)).remove();
      const count = 40;
      expect(await tryDamaged(good, count, render)).toBeLessThan(count);
    },
  );
});

describe.skipIf(tools === undefined)(`damaged videos ${title}${reason}`, () => {
  it("are taken or refused for good", async () => {
    const good = join(folder, "good.mp4");
    await ffmpeg(...source("64x48", 1), "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", good);
    const videos = ffmpegVideos({ directory: work, limits: { timeLimitMs: 10_000 } });
    await tryDamaged(await readFile(good), 8, (path) => videos.makeRendition(path));
  });
});
