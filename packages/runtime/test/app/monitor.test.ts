/** What a process tells a monitor. */
import { describe, expect, it } from "vitest";
import { createMetrics } from "../../src/monitor/index.ts";

describe("metrics", () => {
  const observe = (metrics: ReturnType<typeof createMetrics>, route: string, status: number, durationMs: number) =>
    metrics.observeRequest({ method: "GET", route, status, durationMs });

  it("count requests in cumulated buckets, by method, route and status", async () => {
    const metrics = createMetrics();
    for (const ms of [0.5, 1, 1.1, 40, 60_000]) observe(metrics, "/a/:id", 200, ms);
    observe(metrics, "/a/:id", 404, 2);
    const { text, contentType } = await metrics.expose();
    metrics.close();
    expect(contentType).toContain("text/plain");
    const value = (line: string) =>
      Number(
        text
          .split("\n")
          .find((candidate) => candidate.startsWith(`${line} `))
          ?.split(" ")
          .pop(),
      );
    const labels = 'method="GET",route="/a/:id",status="200"';
    const bucket = (bound: string) => value(`http_request_duration_seconds_bucket{le="${bound}",${labels}}`);
    expect([bucket("0.001"), bucket("0.0025"), bucket("0.05"), bucket("30"), bucket("+Inf")]).toEqual([2, 3, 4, 4, 5]);
    expect(value(`http_request_duration_seconds_count{${labels}}`)).toBe(5);
    expect(value(`http_request_duration_seconds_sum{${labels}}`)).toBeCloseTo(60.0426);
    expect(value('http_request_duration_seconds_count{method="GET",route="/a/:id",status="404"}')).toBe(1);
  });

  it("escape what a label may not hold as it is", async () => {
    const metrics = createMetrics();
    observe(metrics, 'a"b\\c\nd', 200, 1);
    expect((await metrics.expose()).text).toContain('route="a\\"b\\\\c\\nd"');
    metrics.close();
  });

  it("show the process and what is registered, read at the time of asking", async () => {
    const metrics = createMetrics();
    let depth = 1;
    metrics.registerGauge({
      name: "queue_depth",
      help: "h",
      labelNames: ["queue"],
      read: () => [{ labels: { queue: "q" }, value: depth }],
    });
    depth = 7;
    const { text } = await metrics.expose();
    metrics.close();
    expect(text).toContain('queue_depth{queue="q"} 7');
    for (const name of [
      "process_resident_memory_bytes",
      "nodejs_eventloop_utilization",
      "nodejs_eventloop_delay_p99_seconds",
    ]) {
      expect(Number(new RegExp(`^${name} (\\S+)$`, "m").exec(text)?.[1])).toBeGreaterThanOrEqual(0);
    }
  });
});
