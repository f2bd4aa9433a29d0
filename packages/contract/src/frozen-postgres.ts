/** A test's server that hangs and goes on again; killing one is its `stop()`. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { TestPostgres } from "./test-postgres.ts";

/** Stops every process of the server where it is, as a hung machine would. Gives how to let it go on. */
export async function freeze(server: TestPostgres): Promise<() => void> {
  const [first] = (await readFile(join(server.host, "data", "postmaster.pid"), "utf8")).split("\n");
  const postmaster = Number(first);
  // First the one that could start others meanwhile.
  process.kill(postmaster, "SIGSTOP");
  const frozen = [postmaster];
  for (const pid of await childrenOf(postmaster)) {
    try {
      process.kill(pid, "SIGSTOP");
      frozen.push(pid);
    } catch {
      // It has ended meanwhile.
    }
  }
  return () => {
    for (const pid of frozen.splice(0).reverse()) {
      try {
        process.kill(pid, "SIGCONT");
      } catch {
        // It has ended meanwhile.
      }
    }
  };
}

async function childrenOf(parent: number): Promise<number[]> {
  const pids = (await readdir("/proc")).map(Number).filter(Number.isInteger);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      // The command, in parentheses, may hold anything; state and parent follow it.
      const [, ppid] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(ppid) === parent ? [pid] : [];
    }),
  );
  return found.flat();
}
