/** One web process of the counter site: says its address, and stops when its standard input ends. */
import { pino } from "pino";
import { startApp } from "../../../src/app/app.ts";
import { defineApp } from "../../../src/app/service.ts";
import { createLifecycle } from "../../../src/kernel/lifecycle.ts";
import { resolveTopology } from "../../../src/topology/index.ts";
import { counters } from "./counter-service.ts";

const log = pino({ level: process.env["COUNTER_LOG"] ?? "silent" }, pino.destination(2));
const content = JSON.parse(process.env["COUNTER_TOPOLOGY"] ?? "{}") as unknown;
const { topology } = resolveTopology({ file: { name: "test", content } });
const lifecycle = createLifecycle({ log });
const app = await startApp(defineApp({ name: "counters", services: [counters] }), { topology, log, lifecycle });
process.stdout.write(`${JSON.stringify({ address: app.address })}\n`);
process.stdin.resume().once("end", async () => {
  const errors = await app.stop();
  for (const error of errors) process.stderr.write(`${error.stack}\n`);
  process.exit(errors.length > 0 ? 1 : 0);
});
