/**
 * A burst of ten times what the workers can do: what the API's clients notice, and how the queue drains, with more workers for a while.
 *
 * `npm run bench:burst -- --rate 200 --seconds 60 --broker rabbitmq`. The API takes the same requests at the same rate all the time;
 * at first the handlers keep up, then each takes so long that a worker does a tenth of what comes. At the end every message must have
 * been handled once. The generator is this process, on the same cores.
 */
import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type LoadResult, openLoop, requestBytes } from "./load-client.ts";
import { benchFolder, startStack } from "./stack/launcher.ts";

const { values } = parseArgs({
  options: {
    rate: { type: "string", default: "200" },
    seconds: { type: "string", default: "60" },
    broker: { type: "string", default: "rabbitmq" },
    workers: { type: "string", default: "6" },
  },
});
const rate = Number(values.rate);
const seconds = Number(values.seconds);
/** Messages that a worker handles at once, by the runtime's default. */
const concurrency = 10;
const drainSecondsMax = 600;

const app = fileURLToPath(new URL("../packages/operator/test/support/stack-app/", import.meta.url));
const bin = fileURLToPath(new URL("../packages/operator/bin/rungs.mjs", import.meta.url));
const folder = await benchFolder();
const config = join(folder, "settings.json");
await writeFile(
  config,
  JSON.stringify({
    web: { processes: 1, balancer: "nginx" },
    queue: { url: { env: "QUEUE_URL" } },
    services: { workers: { processes: 1 } },
  }),
);
const stack = await startStack({ app, folder, flags: ["--queue", values.broker, "--config", config] });
/** Requests made, and those of them that were answered. */
let asked = 0;
let sent = 0;
try {
  print(
    `Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}; ${rate} publishing requests a second`,
  );
  await load("warm up", 5, 0);
  const before = await load("workers keep up", seconds / 2, 0);
  const slowMs = Math.round((concurrency * 1_000) / (rate / 10));
  const during = await load(`workers do a tenth (${slowMs} ms each)`, seconds, slowMs);
  print(`p99 in the burst: ${(during.p99Ms / before.p99Ms).toFixed(2)} of the quiet one`);
  const since = performance.now();
  const behind = sent - (await handled());
  execFileSync(process.execPath, [bin, "scale", "workers", values.workers, "--dir", folder], { cwd: app });
  while ((await handled()) < sent && performance.now() - since < drainSecondsMax * 1_000) await sleep(1_000);
  // Whatever was done twice has had the time to show.
  await sleep(2_000);
  const took = ((performance.now() - since) / 1_000).toFixed(0);
  print(
    `${behind} messages behind at its end; ${took} s later, with ${values.workers} workers: ${await handled()} of ${sent} handled`,
  );
} finally {
  await stack.stop();
}

async function load(title: string, forSeconds: number, ms: number): Promise<LoadResult> {
  const { port } = stack;
  const result = await openLoop({
    ...{ port, ratePerSecond: rate, connections: 64, durationMs: forSeconds * 1_000 },
    next: () => requestBytes({ method: "POST", path: `/notes?id=burst-${asked++}&ms=${ms}`, port }),
  });
  const { requests, failures, p50Ms, p99Ms } = result;
  sent += requests - failures;
  print(
    `${title.padEnd(34)} ${requests} requests, ${failures} failed, p50 ${p50Ms.toFixed(1)} ms, p99 ${p99Ms.toFixed(1)} ms`,
  );
  return result;
}

async function handled(): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${stack.port}/handled`);
  return ((await answer.json()) as { rows: unknown[] }).rows.length;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
