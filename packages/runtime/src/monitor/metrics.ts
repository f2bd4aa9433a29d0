/** Measurements of one process, kept in a registry of its own and exposed as Prometheus text. */
import { type Histogram as DelayHistogram, monitorEventLoopDelay, performance } from "node:perf_hooks";
import { Gauge, Registry } from "prom-client";
import { RequestDurations } from "./request-durations.ts";

/** One figure read at scrape time. */
export interface GaugeSource {
  readonly name: string;
  readonly help: string;
  readonly labelNames?: readonly string[];
  read(): readonly { readonly labels?: Readonly<Record<string, string>>; readonly value: number }[];
}

export interface Metrics {
  observeRequest(request: {
    readonly method: string;
    readonly route: string;
    readonly status: number;
    readonly durationMs: number;
  }): void;
  registerGauge(source: GaugeSource): void;
  expose(): Promise<{ readonly contentType: string; readonly text: string }>;
  /** Stops the timers behind the gauges. */
  close(): void;
}

/** Makes an empty registry with the process's own gauges. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  const durations = new RequestDurations();
  const eventLoop = monitorEventLoopDelay({ resolution: 20 });
  eventLoop.enable();
  addProcessGauges(registry, eventLoop);

  return {
    observeRequest({ method, route, status, durationMs }) {
      durations.observe(method, route, status, durationMs / 1_000);
    },
    registerGauge(source) {
      new Gauge({
        name: source.name,
        help: source.help,
        labelNames: [...(source.labelNames ?? [])],
        registers: [registry],
        collect() {
          this.reset();
          for (const { labels = {}, value } of source.read()) this.set(labels, value);
        },
      });
    },
    expose: async () => ({
      contentType: registry.contentType,
      text: `${await registry.metrics()}
${durations.text()}`,
    }),
    close: () => eventLoop.disable(),
  };
}

function addProcessGauges(registry: Registry, eventLoop: DelayHistogram): void {
  const gauge = (name: string, help: string, read: () => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  let last = performance.eventLoopUtilization();
  gauge("process_resident_memory_bytes", "Resident memory, in bytes.", () => process.memoryUsage.rss());
  gauge("nodejs_heap_used_bytes", "Used JavaScript heap, in bytes.", () => process.memoryUsage().heapUsed);
  gauge(
    "nodejs_eventloop_utilization",
    "Share of time since the last scrape that the event loop was busy, 0 to 1.",
    () => {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, last);
      last = now;
      return utilization;
    },
  );
  gauge(
    "nodejs_eventloop_delay_p99_seconds",
    "99th percentile of event loop delay since the last scrape, in seconds.",
    () => {
      const seconds = eventLoop.percentile(99) / 1e9;
      eventLoop.reset();
      return seconds;
    },
  );
  gauge("process_uptime_seconds", "Seconds since the process started.", () => process.uptime());
}
