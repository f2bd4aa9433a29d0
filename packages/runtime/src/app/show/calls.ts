/** What `/metrics` shows of calls between services. */
import { type CallStats, type CallTarget, durationBoundsMs } from "../../call/index.ts";
import type { Metrics } from "../../monitor/index.ts";

/** What was called and served, and how the groups called are. */
export function showCalls(
  metrics: Metrics,
  options: { readonly outgoing: CallStats; readonly incoming: CallStats; readonly targets: readonly CallTarget[] },
): void {
  const sides = { out: options.outgoing, in: options.incoming };
  const all = () =>
    Object.entries(sides).flatMap(([side, stats]) => stats.all().map((each) => ({ labels: { side }, ...each })));
  metrics.registerGauge({
    name: "service_calls",
    help: "Calls since the start by side (out: made here, in: answered here), method, and outcome: ok, declared, or an error's code.",
    labelNames: ["side", "method", "outcome"],
    read: () =>
      all().flatMap(({ labels, method, outcomes }) =>
        [...outcomes].map(([outcome, value]) => ({ labels: { ...labels, method, outcome }, value })),
      ),
  });
  metrics.registerGauge({
    name: "service_call_duration_seconds_bucket",
    help: "Calls since the start that took at most le seconds, all tries together; +Inf is all of them.",
    labelNames: ["side", "method", "le"],
    read: () =>
      all().flatMap(({ labels, method, withinMs }) =>
        withinMs.map((value, index) => {
          const bound = durationBoundsMs[index];
          return { labels: { ...labels, method, le: bound === undefined ? "+Inf" : String(bound / 1_000) }, value };
        }),
      ),
  });
  metrics.registerGauge({
    name: "service_call_duration_seconds_sum",
    help: "Seconds that calls took since the start.",
    labelNames: ["side", "method"],
    read: () => all().map(({ labels, method, totalMs }) => ({ labels: { ...labels, method }, value: totalMs / 1_000 })),
  });
  if (options.targets.length > 0) showTargets(metrics, options.targets);
}

function showTargets(metrics: Metrics, targets: readonly CallTarget[]): void {
  metrics.registerGauge({
    name: "service_call_target",
    help: "Of each group called: calls under way and waiting now; retries, retries over the budget and refusals since the start.",
    labelNames: ["target", "kind"],
    read: () =>
      targets.flatMap((each) => {
        const { target, breakers, ...figures } = each.stats();
        return Object.entries(figures).map(([kind, value]) => ({ labels: { target, kind }, value }));
      }),
  });
  metrics.registerGauge({
    name: "service_call_breaker",
    help: "1 for the state of the breaker of each address called: closed, open or halfOpen.",
    labelNames: ["target", "address", "state"],
    read: () =>
      targets.flatMap((each) => {
        const { target, breakers } = each.stats();
        return breakers.map(({ address, state }) => ({ labels: { target, address, state }, value: 1 }));
      }),
  });
}

/** What was refused for its signature. */
export function showRefusals(metrics: Metrics, refusals: ReadonlyMap<string, number>): void {
  metrics.registerGauge({
    name: "service_calls_denied",
    help: "Calls refused since the start for their signature, by reason.",
    labelNames: ["reason"],
    read: () => [...refusals].map(([reason, value]) => ({ labels: { reason }, value })),
  });
}
