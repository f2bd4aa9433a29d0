#!/usr/bin/env node
/**
 * The bin: runs the command line on Node 24 or newer. On an older one it runs itself again on the package `node` of the
 * project or of this installation, when there is one; arguments, signals and exit code pass through. Runs on any Node from
 * 12.17 on.
 */
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const majorMin = 24;
const majorOf = (version) => Number(version.replace(/^v/, "").split(".")[0]);
/** As in the operator's exit-code.ts: something needed is not there. */
const unavailable = 4;

if (majorOf(process.version) >= majorMin) {
  // The published package holds JavaScript beside this folder, a checkout the TypeScript it is made from.
  const built = new URL("../main.js", import.meta.url);
  const { main } = await import(existsSync(built) ? built.href : new URL("../src/main.ts", import.meta.url).href);
  await main(process.argv.slice(2));
} else {
  const newer = newerNode();
  if (newer === undefined) {
    process.stderr.write(
      `rungs needs Node ${majorMin} or newer, and this is ${process.version}. Install one, or bring it into this project with: npm install --save-dev node@${majorMin}\n`,
    );
    process.exitCode = unavailable;
  } else runOn(newer);
}

/** The Node that npm brought: the project's, else the one beside this package. */
function newerNode() {
  for (const from of [pathToFileURL(join(process.cwd(), "any.js")).href, import.meta.url]) {
    try {
      const manifest = createRequire(from).resolve("node/package.json");
      const program = join(dirname(manifest), "bin", process.platform === "win32" ? "node.exe" : "node");
      if (majorOf(JSON.parse(readFileSync(manifest, "utf8")).version) >= majorMin && existsSync(program))
        return program;
    } catch {
      // Not installed there.
    }
  }
  return undefined;
}

function runOn(program) {
  // Through the channel the program learns that this process was killed, and can stop what it started.
  const child = spawn(program, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: ["inherit", "inherit", "inherit", "ipc"],
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => {
    process.stderr.write(`${program} could not be started: ${error.message}\n`);
    process.exit(unavailable);
  });
  child.on("exit", (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
}
