/** What `/metrics` shows of regions. */
import { type CallStats, durationBoundsMs } from "../../call/index.ts";
import type { Metrics } from "../../monitor/index.ts";
import type { ForwardedRequests } from "../../web/drivers/forwarded-requests.ts";
import type { LeaderRegions } from "../leaders/leader-regions.ts";

/** Where the leaders are, what was forwarded to other regions, and what came from there. */
export function showRegions(
  metrics: Metrics,
  options: {
    readonly leaders: Pick<LeaderRegions, "all">;
    /** By region, in a method's place. */
    readonly stats: CallStats;
    readonly forwarded: Pick<ForwardedRequests, "taken" | "refusals">;
  },
): void {
  const { leaders, stats, forwarded } = options;
  metrics.registerGauge({
    name: "leader_region",
    help: "1 for the region in which each shard's leader is, as far as this process knows.",
    labelNames: ["shard", "region"],
    read: () => leaders.all().map(({ shard, region }) => ({ labels: { shard: String(shard), region }, value: 1 })),
  });
  metrics.registerGauge({
    name: "forwarded_requests",
    help: "Requests forwarded to each region since the start, by outcome: answered, undelivered, unknown, denied, abandoned.",
    labelNames: ["region", "outcome"],
    read: () =>
      stats
        .all()
        .flatMap(({ method: region, outcomes }) =>
          [...outcomes].map(([outcome, value]) => ({ labels: { region, outcome }, value })),
        ),
  });
  metrics.registerGauge({
    name: "forwarded_request_duration_seconds_bucket",
    help: "Requests forwarded since the start that took at most le seconds, to the end of their answer; +Inf is all of them.",
    labelNames: ["region", "le"],
    read: () =>
      stats.all().flatMap(({ method: region, withinMs }) =>
        withinMs.map((value, index) => {
          const bound = durationBoundsMs[index];
          return { labels: { region, le: bound === undefined ? "+Inf" : String(bound / 1_000) }, value };
        }),
      ),
  });
  metrics.registerGauge({
    name: "forwarded_request_duration_seconds_sum",
    help: "Seconds that forwarded requests took since the start.",
    labelNames: ["region"],
    read: () => stats.all().map(({ method: region, totalMs }) => ({ labels: { region }, value: totalMs / 1_000 })),
  });
  metrics.registerGauge({
    name: "requests_from_other_regions",
    help: "Requests since the start that other regions forwarded to here: taken, and refused by reason.",
    labelNames: ["outcome"],
    read: () => [
      { labels: { outcome: "taken" }, value: forwarded.taken() },
      ...[...forwarded.refusals].map(([reason, value]) => ({ labels: { outcome: reason }, value })),
    ],
  });
}
