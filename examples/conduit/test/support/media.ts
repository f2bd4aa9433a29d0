/** Files for uploads, made on the spot, and a client that sends them. */
import { execFile } from "node:child_process";
import { chmod, mkdir, mkdtemp, readFile, rename, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { findFfmpeg } from "rungs/media/ffmpeg";
import sharp from "sharp";
import { expect } from "vitest";
import type { Upload } from "../../src/domain/model.ts";
import type { Answer, Client } from "./client.ts";

/** A photograph-like JPEG. */
export function picture(widthPx = 1_600, heightPx = 1_000): Promise<Buffer> {
  const noise = { type: "gaussian", mean: 128, sigma: 30 } as const;
  return sharp({ create: { width: widthPx, height: heightPx, channels: 3, background: "#456", noise } })
    .withExif({ IFD0: { Copyright: "a secret place" } })
    .jpeg()
    .toBuffer();
}

/** Two seconds of a test picture with a tone. Raises without ffmpeg: what needs it must not pass without. */
export async function video(seconds = 2): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), "conduit-video-"));
  const path = join(folder, "made.mp4");
  const source = ["-f", "lavfi", "-i", `testsrc=size=320x240:rate=25:duration=${seconds}`];
  const sound = ["-f", "lavfi", "-i", `sine=frequency=440:duration=${seconds}`];
  try {
    await promisify(execFile)("ffmpeg", [...source, ...sound, "-c:v", "libx264", "-c:a", "aac", "-shortest", path]);
    return await readFile(path);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** An ffmpeg that only the app under test is told of, and that may be gone for a while, for every process at once. */
export interface OwnFfmpeg {
  readonly environment: Readonly<Record<string, string>>;
  hide(): Promise<void>;
  show(): Promise<void>;
  remove(): Promise<void>;
}

export async function ownFfmpeg(): Promise<OwnFfmpeg> {
  const { ffmpegPath, ffprobePath } = await findFfmpeg();
  const folder = await mkdtemp(join(tmpdir(), "conduit-ffmpeg-"));
  await chmod(folder, 0o755);
  const [shown, hidden] = [join(folder, "programs"), join(folder, "hidden")];
  await mkdir(shown);
  await symlink(ffmpegPath, join(shown, "ffmpeg"));
  await symlink(ffprobePath, join(shown, "ffprobe"));
  return {
    environment: { RUNGS_FFMPEG: join(shown, "ffmpeg") },
    hide: () => rename(shown, hidden),
    show: () => rename(hidden, shown),
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

/** Sends a file as an upload. */
export async function upload(
  url: string,
  who: Client,
  purpose: string,
  file: Buffer,
  name = "A picture (1).jpg",
  visibility?: string,
): Promise<Answer> {
  const body = new FormData();
  if (visibility !== undefined) body.append("visibility", visibility);
  body.append("file", new Blob([new Uint8Array(file)]), name);
  const response = await fetch(`${url}/api/uploads?purpose=${purpose}`, {
    method: "POST",
    body,
    headers: who.token === undefined ? {} : { authorization: `Token ${who.token}` },
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: text === "" ? undefined : JSON.parse(text) };
}

/** Waits until the upload has one of these states. */
export async function untilState(who: Client, id: string, ...states: readonly Upload["state"][]): Promise<Upload> {
  let last: Upload | undefined;
  await expect
    .poll(
      async () => {
        last = (await who.get(`/uploads/${id}`)).body.upload as Upload;
        return last.state;
      },
      { timeout: 60_000, interval: 100 },
    )
    .toBeOneOf([...states]);
  return last as Upload;
}
