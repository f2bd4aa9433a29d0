/** The monitor tier: what a process measures about itself. */
export { createMetrics, type GaugeSource, type Metrics } from "./metrics.ts";
