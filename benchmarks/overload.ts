/**
 * What is left of the throughput past saturation: an open loop at 1, 2 and 5 times the capacity against one web process of Conduit,
 * directly and through the balancer, and against two behind it. Cache off, so that each request is work.
 *
 * Goodput is told twice, as a share of the capacity: by the number of accepted requests, and by their work, where a request of a kind
 * counts as 1 / (the capacity for that kind alone). They differ for a mix: the signed-in, who are shed last, cost more than the others.
 *
 * `npm run bench:overload -- --people 500 --seconds 6 --balancer haproxy`; nginx unless another one is named. The generator is this
 * process; on few cores it takes its share of them from the servers, so its processor time is printed beside theirs.
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { closedLoop, openLoop, requestBytes } from "./load-client.ts";
import {
  cpuSeconds,
  median,
  print,
  register,
  type StartedStack,
  seededDatabase,
  startStack,
} from "./stack/launcher.ts";

const { values } = parseArgs({
  options: {
    people: { type: "string", default: "500" },
    seconds: { type: "string", default: "6" },
    rounds: { type: "string", default: "3" },
    only: { type: "string", default: "" },
    balancer: { type: "string", default: "nginx" },
  },
});
const { balancer } = values;
const durationMs = Number(values.seconds) * 1_000;
const rounds = Number(values.rounds);
const factors = [1, 2, 5];
const connections = 1_000;
/** Enough to keep the processes busy, and fewer than any kind may have under way: nothing of it is refused. */
const peakOf = { connections: 24 };
const kinds = ["signedIn", "anonymous", "bot"] as const;
type Kind = (typeof kinds)[number];
const path = "/api/articles?limit=20";

interface Outcome {
  readonly goodput: number;
  /** Part of the process's time that the accepted requests of each kind are worth: 1 is all of it. */
  readonly work: number;
  readonly p99Ms: number;
  readonly offered: number;
  readonly shedShare: Readonly<Record<Kind, number>>;
  readonly others: string;
  readonly cores: string;
}

type Measured = Outcome & { readonly ofPeak: number; readonly workOfPeak: number };

print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}; ${path}, cache off`);
const database = await seededDatabase(values.people);
try {
  for (const processes of [1, 2]) {
    const stack = await startStack({
      flags: ["--rung", "2", "--processes", String(processes), "--balancer", balancer],
      databaseUrl: database.url,
      cache: "off",
    });
    try {
      const tokens: string[] = [];
      for (let index = 0; index < 20; index++) tokens.push(await register(stack.port, `bench${processes}x${index}`));
      if (processes === 1) await measure("one process, directly", stack, stack.web[0]?.port as number, tokens);
      await measure(`${processes} behind ${balancer}`, stack, stack.port, tokens);
    } finally {
      await stack.stop();
    }
  }
} finally {
  await database.stop();
}

async function measure(title: string, stack: StartedStack, port: number, tokens: readonly string[]): Promise<void> {
  if (!title.includes(values.only)) return;
  const mixes: readonly [string, readonly Kind[]][] = [
    ["anonymous", ["anonymous"]],
    ["signed in", ["signedIn"]],
    ["a third each", kinds],
  ];
  const alone = await capacityByKind(port, tokens);
  for (const [name, mix] of mixes) {
    const requests = mix.flatMap((kind) => tokens.map((token) => ({ kind, bytes: bytesOf(kind, { port, token }) })));
    const kindOf = new Map(requests.map(({ kind, bytes }) => [bytes, kind]));
    let at = 0;
    const next = () => requests[(at++ * 7) % requests.length]?.bytes as Buffer;
    const peakNow = async () => (await closedLoop({ ...{ port, next, durationMs: 2_000 }, ...peakOf })).goodPerSecond;
    await peakNow();
    const first = await peakNow();
    const peaks: number[] = [];
    const outcomes = new Map<number, Measured[]>(factors.map((times) => [times, []]));
    const mixWork = mix.reduce((sum, kind) => sum + 1 / alone[kind], 0) / mix.length;
    for (let round = 0; round < rounds; round++) {
      // Measured again each time, so that a change of the machine's pace meets both sides of the ratio.
      const peak = await peakNow();
      peaks.push(peak);
      for (const times of factors) {
        const outcome = await overload(stack, { port, next, kindOf, rate: first * times, alone });
        outcomes.get(times)?.push({
          ...outcome,
          ofPeak: outcome.goodput / peak,
          workOfPeak: outcome.work / (peak * mixWork),
        });
      }
    }
    print(
      `\n${title}, ${name}: capacity ${Math.round(median(peaks))}/s (closed loop, ${peakOf.connections} connections)`,
    );
    print("  offered  goodput  of capacity  by work  p99 of accepted  shed: signed in  anonymous  bots    cores used");
    for (const [times, results] of outcomes) {
      const of = (pick: (outcome: Measured) => number) => median(results.map(pick));
      const shed = kinds
        .map(
          (kind) =>
            `${cell(
              of(({ shedShare }) => shedShare[kind] * 100),
              10,
              1,
            )}%`,
        )
        .join("");
      print(
        `  ${String(times).padStart(5)} x  ${cell(
          of(({ goodput }) => goodput),
          7,
          0,
        )}  ${cell(
          of(({ ofPeak }) => ofPeak * 100),
          10,
          0,
        )}%  ${cell(
          of(({ workOfPeak }) => workOfPeak * 100),
          6,
          0,
        )}%` +
          `  ${cell(
            of(({ p99Ms }) => p99Ms),
            12,
            0,
          )} ms  ${shed}    ${results.map(({ cores, others }) => cores + others)[0]}`,
      );
    }
  }
}

/** Requests a second of each kind alone, by a closed loop; the kinds take turns, so that all meet the same machine. */
async function capacityByKind(port: number, tokens: readonly string[]): Promise<Record<Kind, number>> {
  const found: Record<Kind, number[]> = { signedIn: [], anonymous: [], bot: [] };
  for (let round = 0; round < 4; round++) {
    for (const kind of kinds) {
      const requests = tokens.map((token) => bytesOf(kind, { port, token }));
      let at = 0;
      const next = () => requests[at++ % requests.length] as Buffer;
      const { goodPerSecond } = await closedLoop({ ...{ port, next, durationMs: 1_500 }, ...peakOf });
      // The first is for getting warm.
      if (round > 0) found[kind].push(goodPerSecond);
    }
  }
  const alone = { signedIn: median(found.signedIn), anonymous: median(found.anonymous), bot: median(found.bot) };
  print(`\nEach kind alone: ${kinds.map((kind) => `${kind} ${Math.round(alone[kind])}/s`).join(", ")}`);
  return alone;
}

function bytesOf(kind: Kind, { port, token }: { readonly port: number; readonly token: string }): Buffer {
  const agent = kind === "bot" ? "Mozilla/5.0 (compatible; bingbot/2.0)" : "Mozilla/5.0 (X11; Linux x86_64)";
  const headers = { "user-agent": agent, ...(kind === "signedIn" ? { authorization: `Token ${token}` } : {}) };
  return requestBytes({ method: "GET", path, port, headers });
}

async function overload(
  stack: StartedStack,
  load: {
    port: number;
    next: () => Buffer;
    kindOf: ReadonlyMap<Buffer, Kind>;
    rate: number;
    alone: Readonly<Record<Kind, number>>;
  },
): Promise<Outcome> {
  const { port, next, kindOf, rate, alone } = load;
  const settleMs = 2_000;
  const since = performance.now();
  const answers: { kind: Kind; status: number; ms: number }[] = [];
  const before = await usage(stack);
  await openLoop({
    ...{ port, next, connections, ratePerSecond: rate, durationMs: settleMs + durationMs, waitingMax: 0 },
    onAnswer: ({ request, status, ms }) => {
      const now = performance.now() - since;
      if (now < settleMs || now > settleMs + durationMs) return;
      answers.push({ kind: kindOf.get(request) as Kind, status, ms });
    },
  });
  const seconds = (performance.now() - since) / 1_000;
  const after = await usage(stack);
  const accepted = answers.filter(({ status }) => status === 200);
  const times = accepted.map(({ ms }) => ms).sort((a, b) => a - b);
  const shareOf = (kind: Kind) => {
    const own = answers.filter((answer) => answer.kind === kind);
    return own.filter(({ status }) => status === 503).length / Math.max(1, own.length);
  };
  const others = answers.filter(({ status }) => status !== 200 && status !== 503);
  return {
    goodput: (accepted.length * 1_000) / durationMs,
    work: (accepted.reduce((sum, { kind }) => sum + 1 / alone[kind], 0) * 1_000) / durationMs,
    p99Ms: times[Math.floor(times.length * 0.99)] ?? Number.NaN,
    offered: rate,
    shedShare: { signedIn: shareOf("signedIn"), anonymous: shareOf("anonymous"), bot: shareOf("bot") },
    others:
      others.length === 0
        ? ""
        : `; other answers: ${[...new Set(others.map(({ status }) => status))].map((status) => `${others.filter((answer) => answer.status === status).length} x ${status}`)}`,
    cores: after
      .map(({ name, used }, index) => `${name} ${((used - (before[index]?.used ?? 0)) / seconds).toFixed(2)}`)
      .join(", "),
  };
}

async function usage(stack: StartedStack): Promise<{ name: string; used: number }[]> {
  const { user, system } = process.cpuUsage();
  const web = await Promise.all(stack.web.map(({ pid }) => cpuSeconds(pid)));
  return [
    { name: "web", used: web.reduce((sum, one) => sum + one, 0) },
    { name: balancer, used: await cpuSeconds(stack.pidOf("balancer")) },
    { name: "generator", used: (user + system) / 1e6 },
  ];
}

function cell(value: number, width: number, digits: number): string {
  return value.toFixed(digits).padStart(width);
}
