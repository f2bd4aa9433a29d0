/** Routing rules from what the processes of each group tell of their routes: nobody lists paths by hand. */
import { UnavailableError } from "rungs";
import type { OperatorAnswers } from "rungs/operations";
import { type RoutingRule, routingRules } from "../front/routing-rules.ts";
import type { ProcessGroup } from "./process-group.ts";

/** Asks one process of each group of services. Raises `SERVER_START_FAILED` when none of a group answers. */
export async function toldRules(
  groups: readonly { readonly group: string; readonly processes: ProcessGroup }[],
): Promise<RoutingRule[]> {
  const told = await Promise.all(
    groups.map(async ({ group, processes }) => {
      const [said] = await processes.question({ about: "routes" }, "one");
      if (said !== undefined && "answer" in said) {
        return (said.answer as OperatorAnswers["routes"]).map((route) => ({ ...route, group }));
      }
      throw new UnavailableError(
        "SERVER_START_FAILED",
        `No process of ${processes.name} told its routes: ${said?.error.message ?? "none is ready"}`,
        { canRetry: true },
      );
    }),
  );
  return routingRules(told.flat());
}
