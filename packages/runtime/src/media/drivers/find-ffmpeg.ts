/** Finds ffmpeg and ffprobe on this machine. */
import { delimiter, dirname, isAbsolute, join } from "node:path";
import { UnavailableError } from "../../kernel/errors.ts";
import { isRunnable } from "./limited-process.ts";

/** Absolute paths of the two programs. */
export interface Ffmpeg {
  readonly ffmpegPath: string;
  readonly ffprobePath: string;
}

/** What is looked at; default the process's own. */
export interface FindFfmpegOptions {
  readonly environment?: Readonly<Record<string, string | undefined>>;
  readonly platform?: NodeJS.Platform;
}

/**
 * The programs that `RUNGS_FFMPEG` names (the absolute path of ffmpeg, with ffprobe beside it), else those on `PATH`.
 *
 * Looks anew at each call, a few system calls, so that a later installation is noticed without a restart.
 * Raises `UnavailableError` with `MEDIA_TOOL_MISSING`, worth a retry, whose message says what to install.
 */
export async function findFfmpeg(options: FindFfmpegOptions = {}): Promise<Ffmpeg> {
  const { environment = process.env, platform = process.platform } = options;
  if (platform === "win32")
    throw missing("Videos are not processed on Windows. Run the app under WSL or in a container.");
  const named = environment["RUNGS_FFMPEG"] ?? "";
  if (named !== "") {
    const found = isAbsolute(named) ? await pairIn(dirname(named), named) : undefined;
    if (found !== undefined) return found;
    throw missing(
      `RUNGS_FFMPEG is "${named}", which is not the absolute path of a program with ffprobe beside it. Correct or unset it.`,
    );
  }
  // A relative or empty entry means the current folder, which is nowhere to take programs from.
  for (const folder of (environment["PATH"] ?? "").split(delimiter).filter(isAbsolute)) {
    const found = await pairIn(folder, join(folder, "ffmpeg"));
    if (found !== undefined) return found;
  }
  throw missing(`ffmpeg and ffprobe are not on PATH. Install them: ${installers[platform] ?? installers.linux}.`);
}

const installers: Partial<Record<NodeJS.Platform, string>> & { readonly linux: string } = {
  linux: "apt-get install ffmpeg (Debian, Ubuntu), apk add ffmpeg (Alpine), dnf install ffmpeg (Fedora, RPM Fusion)",
  darwin: "brew install ffmpeg",
  freebsd: "pkg install ffmpeg",
};

async function pairIn(folder: string, ffmpegPath: string): Promise<Ffmpeg | undefined> {
  const ffprobePath = join(folder, "ffprobe");
  return (await isRunnable(ffmpegPath)) && (await isRunnable(ffprobePath)) ? { ffmpegPath, ffprobePath } : undefined;
}

function missing(what: string): UnavailableError {
  const message = `${what} Uploads are kept and processed once it is there; no restart is needed.`;
  return new UnavailableError("MEDIA_TOOL_MISSING", message, { canRetry: true });
}
