/**
 * Brings the npm packages of this checkout up to its lock file, when they are not. Runs on any Node from 20 on and needs
 * no package itself: it is what every other script calls first.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Root folder of the checkout. */
export const root = fileURLToPath(new URL("..", import.meta.url));
const stamp = join(root, "node_modules", ".rungs-installed");

/** Installs what is missing. Ends the process with npm's own code, and its words on the screen, when that fails. */
export function ensureInstalled() {
  const wanted = createHash("sha256")
    .update(readFileSync(join(root, "package-lock.json")))
    .digest("hex");
  if (existsSync(stamp) && readFileSync(stamp, "utf8") === wanted && existsSync(nodeBinary())) return;
  process.stdout.write("Installing packages (once, under a minute) ...\n");
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const { status, error } = spawnSync(npm, ["ci", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: "inherit",
    shell: process.platform === "win32",
  });
  if (status !== 0) {
    process.stderr.write(
      `\nThe packages could not be installed${error ? `: ${error.message}` : "; npm says why above"}. Mend that and run the same command again.\n`,
    );
    process.exit(status ?? 1);
  }
  writeFileSync(stamp, wanted);
}

/** The Node that npm brought, whatever the machine's own is. */
export function nodeBinary() {
  return join(root, "node_modules", "node", "bin", process.platform === "win32" ? "node.exe" : "node");
}
