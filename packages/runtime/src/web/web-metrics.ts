/** What the web tier tells a monitor about each request; `monitor/` satisfies it. */
export interface WebMetrics {
  /** `route` is the pattern, never the path, so that the number of series stays bounded. */
  observeRequest(request: {
    readonly method: string;
    readonly route: string;
    readonly status: number;
    readonly durationMs: number;
  }): void;
  /** Prometheus text exposition. */
  expose(): Promise<{ readonly contentType: string; readonly text: string }>;
}
