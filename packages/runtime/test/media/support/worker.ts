/**
 * A worker to be killed: makes a rendition, holds one limited program, and starts one without any care.
 * Arguments: a video, a folder for the work, a file for the careful program, a file for the careless one.
 */
import { spawn } from "node:child_process";
import { ffmpegVideos } from "../../../src/media/drivers/ffmpeg-video.ts";
import { findHelpers, runLimited } from "../../../src/media/drivers/limited-process.ts";

const [video = "", work = "", careful = "", careless = ""] = process.argv.slice(2);
const hour = 3_600_000;
const limits = {
  timeLimitMs: hour,
  cpuMsMax: hour,
  memoryBytesMax: 2 ** 30,
  fileBytesMax: 2 ** 20,
  outputBytesMax: 2 ** 20,
};
const helpers =
  process.env["HELPERS"] === "none"
    ? { nice: [], tied: [], noNetwork: [] }
    : await findHelpers({ withoutNetwork: process.env["HELPERS"] === "all" });

spawn("/usr/bin/tail", ["-f", careless], { detached: true, stdio: "ignore" });
const program = { path: "/usr/bin/tail", args: ["-f", careful], directory: work, limits, helpers };
void runLimited({ ...program, signal: undefined, onOutput: () => {} });
if (video === "") process.stdout.write("at work\n");
else
  await ffmpegVideos({ directory: work }).makeRendition(video, {
    onProgress: (share) => {
      if (share > 0) process.stdout.write("at work\n");
    },
  });
