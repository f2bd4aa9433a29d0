/**
 * What a call between services costs: within a process, and over HTTP to another process, beside the least that each could cost: a function
 * call with the same two JSON round trips, a bare request (by undici, and by Node's own client) to a bare Node server, and gRPC
 * (`@grpc/grpc-js`).
 *
 * `npm run bench:calls -- --seconds 4 --rounds 5 --callers 1,16`. Closed loop, one caller process and one callee process on one machine, all
 * systems taking turns in each round. The method answers at once, so what is measured is the way and nothing else. Reported: medians
 * of rounds; the CPU time is that of both processes.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type CallSystem, systems } from "./calls/systems.ts";
import { quantile } from "./rate.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "4" },
    rounds: { type: "string", default: "5" },
    callers: { type: "string", default: "1,16" },
  },
});

interface Round {
  readonly perSecond: number;
  readonly p50Us: number;
  readonly p99Us: number;
  /** CPU time of the caller and of the callee for each call. */
  readonly callerUs: number;
  readonly calleeUs: number;
}

interface Load {
  readonly callers: number;
  readonly forMs: number;
  readonly callee: ChildProcess;
}

/** CPU time that the callee's process has used, in microseconds. */
async function cpuOf(callee: ChildProcess): Promise<number> {
  const answer = once(callee, "message");
  callee.send("cpu");
  return (await answer)[0] as number;
}

/** So many callers that each call again as soon as they have their answer. */
async function run(call: CallSystem["call"], { callers, forMs, callee }: Load): Promise<Round> {
  const durations: number[] = [];
  const calleeBefore = await cpuOf(callee);
  const cpuBefore = process.cpuUsage();
  const since = performance.now();
  const until = since + forMs;
  await Promise.all(
    Array.from({ length: callers }, async (_, caller) => {
      for (let amount = caller + 1; ; amount++) {
        const begun = performance.now();
        if (begun >= until) return;
        const { total } = await call({ amount, currency: "EUR", payer: "018f3c1e-7b7a-7cc2-9f43-5a1f7f0f4a11" });
        if (total !== amount + Math.floor(amount / 20)) throw new Error(`A wrong answer: ${total} for ${amount}.`);
        durations.push(performance.now() - begun);
      }
    }),
  );
  const { user, system } = process.cpuUsage(cpuBefore);
  const elapsedMs = performance.now() - since;
  return {
    perSecond: (durations.length / elapsedMs) * 1_000,
    p50Us: quantile(durations, 0.5) * 1_000,
    p99Us: quantile(durations, 0.99) * 1_000,
    callerUs: (user + system) / durations.length,
    calleeUs: ((await cpuOf(callee)) - calleeBefore) / durations.length,
  };
}

function medianOf(rounds: readonly Round[], figure: keyof Round): number {
  return quantile(
    rounds.map((round) => round[figure]),
    0.5,
  );
}

async function compare(): Promise<void> {
  const child = fork(fileURLToPath(new URL("./calls/callee.ts", import.meta.url)));
  const [addresses] = (await once(child, "message")) as [Record<string, string>];
  const opened = await Promise.all(systems.map((open) => open(addresses)));
  try {
    for (const callers of String(values.callers).split(",").map(Number)) {
      const rounds = new Map<CallSystem, Round[]>(opened.map((system) => [system, []]));
      for (const system of opened) await run(system.call, { callers, forMs: 1_000, callee: child });
      for (let round = 0; round < Number(values.rounds); round++) {
        for (const system of round % 2 === 0 ? opened : opened.toReversed()) {
          const load = { callers, forMs: Number(values.seconds) * 1_000, callee: child };
          rounds.get(system)?.push(await run(system.call, load));
        }
      }
      report(callers, rounds);
    }
  } finally {
    await Promise.all(opened.map((system) => system.close()));
    child.disconnect();
    await once(child, "exit");
  }
}

function report(callers: number, rounds: ReadonlyMap<CallSystem, readonly Round[]>): void {
  print(
    `\n${callers} caller${callers === 1 ? "" : "s"}                calls/s     p50 us     p99 us   CPU us: caller callee   to bare HTTP: p50   calls/s`,
  );
  const bare = [...rounds].find(([{ name }]) => name === "bare HTTP")?.[1] ?? [];
  for (const [{ name }, measured] of rounds) {
    const of = (figure: keyof Round) => medianOf(measured, figure);
    const ratio = (figure: keyof Round) => (of(figure) / medianOf(bare, figure)).toFixed(2);
    print(
      [
        name.padEnd(20),
        of("perSecond").toFixed(0).padStart(10),
        of("p50Us").toFixed(1).padStart(10),
        of("p99Us").toFixed(1).padStart(10),
        of("callerUs").toFixed(1).padStart(15),
        of("calleeUs").toFixed(1).padStart(7),
        ratio("p50Us").padStart(19),
        ratio("perSecond").padStart(9),
      ].join(" "),
    );
  }
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}`);
await compare();
