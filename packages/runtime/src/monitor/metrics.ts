/** Measurements of one process, kept in a registry of its own and exposed as Prometheus text. */
import { type Histogram as DelayHistogram, monitorEventLoopDelay, performance } from "node:perf_hooks";
import { Gauge, Histogram, Registry } from "prom-client";

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

/** Seconds; from a cache hit to the request timeout. */
const durationBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/** Makes an empty registry with the process's own gauges. */
export function createMetrics(): Metrics {
  const registry = new Registry();
  const durations = new Histogram({
    name: "http_request_duration_seconds",
    help: "Time from a request's arrival to the end of its answer, in seconds.",
    labelNames: ["method", "route", "status"] as const,
    buckets: durationBuckets,
    registers: [registry],
  });
  // Bound children are several times cheaper than a label look-up a request; routes and statuses are few.
  const children = new Map<string, { observe(seconds: number): void }>();
  const eventLoop = monitorEventLoopDelay({ resolution: 20 });
  eventLoop.enable();
  addProcessGauges(registry, eventLoop);

  return {
    observeRequest({ method, route, status, durationMs }) {
      const key = `${method} ${route} ${status}`;
      let child = children.get(key);
      if (child === undefined) {
        child = durations.labels({ method, route, status: String(status) });
        children.set(key, child);
      }
      child.observe(durationMs / 1_000);
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
    expose: async () => ({ contentType: registry.contentType, text: await registry.metrics() }),
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
