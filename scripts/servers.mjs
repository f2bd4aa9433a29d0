/** Installs the real servers that tests need, where this machine lets us: on Debian's family, as root. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const policy = "/usr/sbin/policy-rc.d";
const servers = JSON.parse(readFileSync(new URL("servers.json", import.meta.url), "utf8"));

const root = fileURLToPath(new URL("..", import.meta.url));
const works = (command) => spawnSync("sh", ["-c", command], { cwd: root, stdio: "ignore" }).status === 0;

/** Installs what is missing; gives a line for each server that is still missing, saying what cannot run without it. */
export function ensureServers() {
  const couldFetch = canFetch();
  if (couldFetch) fetchMissing();
  const missing = servers.filter(({ probe }) => !works(probe));
  if (missing.length === 0) return [];
  if (process.getuid?.() === 0 && works("command -v apt-get")) installByApt(missing.flatMap(({ apt }) => apt));
  if (!couldFetch && canFetch()) fetchMissing();
  return servers
    .filter(({ probe }) => !works(probe))
    .map(
      ({ name, apt, neededFor, fetch }) =>
        `${name} is missing, so ${neededFor} could not run. Debian: apt-get install ${apt.join(" ")}${fetch === undefined ? "" : `, then node ${fetch}`}`,
    );
}

const canFetch = () => works("command -v java && command -v mvn");

/** What no package of Debian brings: by scripts of ours, which say what went wrong. */
function fetchMissing() {
  for (const { name, fetch, probe } of servers) {
    if (fetch === undefined || works(probe)) continue;
    process.stdout.write(`Fetching ${name} ...\n`);
    spawnSync(process.execPath, [fetch], { cwd: root, stdio: "inherit", timeout: 600_000 });
  }
}

/** No service may start by being installed: the tests start servers of their own. */
function installByApt(packages) {
  process.stdout.write(`Installing ${packages.join(", ")} ...\n`);
  const isOurs = !existsSync(policy);
  if (isOurs) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  const apt = (...args) =>
    spawnSync("apt-get", ["-qq", ...args], {
      stdio: ["ignore", "ignore", "inherit"],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      timeout: 600_000,
    }).status === 0;
  try {
    if (!apt("install", "-y", "--no-install-recommends", ...packages)) {
      apt("update");
      apt("install", "-y", "--no-install-recommends", ...packages);
    }
  } finally {
    if (isOurs) rmSync(policy);
  }
}
