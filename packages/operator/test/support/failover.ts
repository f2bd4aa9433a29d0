/** Writers through the whole stack while a leader is struck: what was acknowledged, what failed in which second, what is there afterwards. */
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { MemberReport, StackStatus } from "../../src/stack/component.ts";
import { askStatus } from "../../src/stack/control/control-client.ts";
import type { RunningStack } from "./stack.ts";

/**
 * How a leader ends: killed with its Patroni, which does not come back before another one leads; killed with it, and back at once; killed
 * alone; or frozen with it, and let go again when another one takes writes.
 */
export type Fault = "gone" | "both killed" | "server killed" | "both frozen";

export interface Writers {
  /** Ids acknowledged so far, with when they were sent and when that was known. */
  readonly acknowledged: ReadonlyMap<string, { readonly sentMs: number; readonly atMs: number }>;
  /** When each failure came, and what it was. */
  readonly failures: readonly { readonly atMs: number; readonly reason: string }[];
  stop(): Promise<void>;
}

const writersDefault = 12;
const answerWithinMs = 15_000;

/** Each writes one entry after the other, every one with an id of its own; none is ever sent twice. */
export function startWriters(url: string, writers = writersDefault): Writers {
  const acknowledged = new Map<string, { sentMs: number; atMs: number }>();
  const failures: { atMs: number; reason: string }[] = [];
  // Two may be started in one millisecond.
  const run = `${process.pid}-${Math.round(performance.now() * 1_000)}`;
  let isStopped = false;
  const write = async (writer: number) => {
    for (let number = 0; !isStopped; number++) {
      const id = `${run}-${writer}-${number}`;
      const sentMs = performance.now();
      const failure = await fetch(`${url}/append?id=${id}`, {
        method: "POST",
        signal: AbortSignal.timeout(answerWithinMs),
      }).then(
        async (answer) => {
          await answer.text();
          return answer.ok ? undefined : String(answer.status);
        },
        (error: Error) => error.name,
      );
      if (failure === undefined) acknowledged.set(id, { sentMs, atMs: performance.now() });
      else {
        failures.push({ atMs: performance.now(), reason: failure });
        await sleep(50);
      }
      await sleep(5);
    }
  };
  const all = Array.from({ length: writers }, (_, writer) => write(writer));
  return {
    acknowledged,
    failures,
    async stop() {
      isStopped = true;
      await Promise.all(all);
    },
  };
}

export interface Failover {
  readonly fault: Fault;
  readonly from: string;
  readonly to: string;
  /** From the fault to the end of the longest time without an acknowledged write. */
  readonly writesAgainMs: number;
  /** From the fault until every server of the shard follows again. */
  readonly wholeMs: number;
  readonly startedMs: number;
}

/** Strikes the leader of a shard and waits until the shard is whole again. Writers must be writing. */
export async function failOver(stack: RunningStack, writers: Writers, fault: Fault, shard = 0): Promise<Failover> {
  const before = await whole(stack, shard, 60_000);
  const from = leaderOf(before, shard) as string;
  const pids = pidsOf(before, from);
  const struck = fault === "server killed" ? [pids.server] : [pids.patroni, pids.server];
  // The whole server: its processes go on by themselves when only the first is frozen.
  const frozen = fault === "both frozen" ? [...struck, ...childrenOf(pids.server)] : [];
  const startedMs = performance.now();
  for (const pid of frozen) signal(pid, "SIGSTOP");
  if (fault !== "both frozen") for (const pid of struck) signal(pid, "SIGKILL");
  if (fault !== "both killed") await anotherLeads(stack, { shard, from, isGone: fault === "gone" });
  await aWrite(writers, performance.now());
  // What the former leader had under way comes back to life, while another one takes writes.
  await sleep(fault === "both frozen" ? 500 : 0);
  for (const pid of frozen) signal(pid, "SIGCONT");
  const to = leaderOf(await whole(stack, shard, 90_000), shard) as string;
  return {
    ...{ fault, from, to, startedMs },
    writesAgainMs: writesAgain(writers, startedMs),
    wholeMs: performance.now() - startedMs,
  };
}

/** What is there of what was acknowledged: lost, and there more than once. */
export async function reckon(
  stack: RunningStack,
  { acknowledged }: Writers,
): Promise<{ readonly lost: string[]; readonly twice: string[]; readonly acknowledged: number }> {
  const { ids } = (await (await fetch(`${stack.app}/appended`)).json()) as { ids: string[] };
  const counts = new Map<string, number>();
  for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
  return {
    lost: [...acknowledged.keys()].filter((id) => !counts.has(id)),
    twice: [...counts].filter(([, count]) => count > 1).map(([id]) => id),
    acknowledged: acknowledged.size,
  };
}

/** Acknowledged and failed writes per second, from 2 s before a fault to the end, as text. */
export function plot(writers: Writers, { startedMs, fault, from, to, writesAgainMs, wholeMs }: Failover): string {
  const seconds = Math.ceil((writesAgainMs + 3_000) / 1_000);
  const rows = Array.from({ length: seconds + 2 }, (_, index) => {
    const second = index - 2;
    const isIn = (atMs: number) => Math.floor((atMs - startedMs) / 1_000) === second;
    const written = [...writers.acknowledged.values()].filter((write) => isIn(write.atMs)).length;
    const failed = writers.failures.filter(({ atMs }) => isIn(atMs)).length;
    const bar = `${".".repeat(Math.round(written / 20))}${"x".repeat(Math.ceil(failed / 5))}`;
    return `  ${String(second).padStart(3)} s  ${String(written).padStart(5)} written  ${String(failed).padStart(4)} failed  ${bar}`;
  });
  return `${fault}: ${from} -> ${to}, writes again after ${Math.round(writesAgainMs)} ms, whole after ${Math.round(wholeMs)} ms\n${rows.join("\n")}`;
}

/** Waits until every server of the shard runs and a commit has its second one. */
export async function whole(stack: RunningStack, shard: number, withinMs: number): Promise<StackStatus> {
  const isAsync = (members: readonly MemberReport[]) => members.every(({ role }) => role !== "sync_standby");
  const until = performance.now() + withinMs;
  let seen: StackStatus | undefined;
  let asyncSince: number | undefined;
  while (performance.now() < until) {
    seen = await askStatus(stack.folder, AbortSignal.timeout(10_000)).catch(() => undefined);
    const members = seen?.shards[shard]?.members ?? [];
    const isWhole =
      members.length > 0 &&
      members.some(({ role }) => role === "leader") &&
      members.every(
        ({ role, state }) => state === (role === "leader" ? "running" : "streaming") || state === "running",
      );
    if (!isWhole) asyncSince = undefined;
    else if (!isAsync(members)) return seen as StackStatus;
    else {
      // Without synchronous mode nobody is ever named.
      asyncSince ??= performance.now();
      if (performance.now() - asyncSince > 5_000) return seen as StackStatus;
    }
    await sleep(100);
  }
  throw new Error(`shard ${shard} is not whole after ${withinMs} ms: ${JSON.stringify(seen?.shards[shard])}`);
}

function leaderOf(status: StackStatus, shard: number): string | undefined {
  return status.shards[shard]?.members.find(({ role }) => role === "leader")?.name;
}

/** Waits until another one leads. With `isGone` the Patroni that the launcher starts again is killed each time. */
async function anotherLeads(
  stack: RunningStack,
  { shard, from, isGone }: { readonly shard: number; readonly from: string; readonly isGone: boolean },
): Promise<void> {
  const until = performance.now() + 60_000;
  while (performance.now() < until) {
    const status = await askStatus(stack.folder, AbortSignal.timeout(10_000)).catch(() => undefined);
    const leader = status === undefined ? undefined : leaderOf(status, shard);
    if (leader !== undefined && leader !== from) return;
    if (isGone && status !== undefined) signal(pidsOf(status, from).patroni, "SIGKILL");
    await sleep(50);
  }
  throw new Error(`nobody leads in place of ${from} after 60 s`);
}

function signal(pid: number | undefined, name: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(pid, name);
  } catch {
    // It has just ended, or been ended.
  }
}

/** Waits until a write is acknowledged that was sent after this. */
async function aWrite(writers: Writers, sinceMs: number): Promise<void> {
  const until = performance.now() + 60_000;
  while (performance.now() < until) {
    for (const { sentMs } of writers.acknowledged.values()) if (sentMs > sinceMs) return;
    await sleep(20);
  }
  throw new Error("nothing was written within 60 s");
}

/** A server that was struck may still finish what it was about to: not the first write counts, but the end of the longest pause. */
function writesAgain({ acknowledged }: Writers, startedMs: number): number {
  const times = [...acknowledged.values()].map(({ atMs }) => atMs).filter((atMs) => atMs > startedMs);
  let [last, longest, end] = [startedMs, 0, startedMs];
  for (const atMs of times.sort((x, y) => x - y)) {
    if (atMs - last > longest) [longest, end] = [atMs - last, atMs];
    last = atMs;
  }
  return end - startedMs;
}

function pidsOf({ processes }: StackStatus, server: string): { readonly server: number; readonly patroni: number } {
  const pid = (name: string) => processes.find((process) => process.name === name)?.pid as number;
  return { server: pid(server), patroni: pid(server.replace("postgres", "patroni")) };
}

function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((child) => {
      try {
        return Number(readFileSync(`/proc/${child}/stat`, "utf8").split(") ").pop()?.split(" ")[1]) === pid;
      } catch {
        return false;
      }
    });
}
