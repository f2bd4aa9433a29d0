/**
 * Runs a program of this checkout on the pinned Node, installing first what is missing:
 * `node scripts/run.mjs examples/conduit/src/main.ts --port 4000`. Runs on any Node from 20 on.
 *
 * Ctrl-C reaches the program from the terminal; this process only waits for it. When this process or its parent (npm)
 * is killed, the program learns of it through the closed channel and stops by itself.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { ensureInstalled, nodeBinary, root } from "./install.mjs";

const [program, ...args] = process.argv.slice(2);
if (program === undefined) {
  process.stderr.write("Usage: node scripts/run.mjs PROGRAM [ARGUMENT ...]\n");
  process.exit(2);
}
ensureInstalled();
const child = spawn(nodeBinary(), [resolve(root, program), ...args], {
  stdio: ["inherit", "inherit", "inherit", "ipc"],
});

// Both the terminal and a supervisor may signal the whole group; a second signal to the program would cut its stop short.
process.on("SIGINT", () => {});
for (const signal of ["SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
const before = ancestors();
const watch = setInterval(() => {
  if (ancestors() !== before) child.kill("SIGTERM");
}, 1_000);
watch.unref();

/** Parent and grandparent: npm may run this through a shell that outlives it. */
function ancestors() {
  const parent = process.ppid;
  try {
    return `${parent} ${readFileSync(`/proc/${parent}/stat`, "utf8").split(") ").pop()?.split(" ")[1]}`;
  } catch {
    return String(parent);
  }
}

child.on("error", (error) => {
  process.stderr.write(`${nodeBinary()} could not be started: ${error.message}\n`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  process.exit(code ?? (signal === "SIGINT" ? 130 : 143));
});
