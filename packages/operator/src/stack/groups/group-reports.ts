/** What a stack's groups and handlers do just now, for `rungs status`. */
import type { OperatorAnswers } from "rungs/operations";
import type { GroupReport, HandlerReport } from "../component.ts";
import type { StackPlan } from "../stack-plan.ts";
import { internalPortNames } from "./planned-groups.ts";
import type { ProcessGroup } from "./process-group.ts";
import type { ProcessGroups } from "./process-groups.ts";

/** The groups. */
export function groupReports(
  groups: ProcessGroups,
  plan: StackPlan,
  ports: Readonly<Record<string, number>>,
): GroupReport[] {
  const internal = plan.regions.flatMap(({ name }) =>
    internalPortNames(plan.groups.filter(({ region }) => region === name)),
  );
  return groups.all.map((group) => {
    const processes = group.processes();
    const port = internal.find(({ name }) => name === `${group.name}-internal`)?.name;
    return {
      name: group.name,
      role: group.role,
      ...(group.region === undefined ? {} : { region: group.region }),
      ready: processes.filter(({ state }) => state === "ready").length,
      processes: processes.length,
      url: port === undefined ? null : `http://127.0.0.1:${ports[port]}`,
    };
  });
}

const readWithinMs = 500;

/**
 * The handlers by name, from what the processes show on `/metrics`, and what one process of each group says of the broker. What does
 * not answer within half a second is left out.
 */
export async function handlerReports(groups: ProcessGroups, signal: AbortSignal): Promise<HandlerReport[]> {
  const within = AbortSignal.any([signal, AbortSignal.timeout(readWithinMs)]);
  const ready = groups.processes().filter(({ state }) => state === "ready");
  const [texts, backlogs] = await Promise.all([
    Promise.all(ready.map(({ port }) => metricsOf(port as number, within))),
    Promise.all(groups.all.map((group) => Promise.race([backlogOf(group), whenAborted(within)]))),
  ]);
  const waiting = new Map(backlogs.flat().map(({ handler, messages }) => [handler, messages]));
  const found = new Map<string, HandlerFigures>();
  for (const { handler, kind, value } of texts.flatMap(figuresIn)) {
    const figures = found.get(handler) ?? { processes: 0, running: 0, done: 0, retried: 0, dead: 0 };
    found.set(handler, figures);
    if (kind === "running") {
      figures.processes++;
      figures.running += value;
    } else if (kind === "done" || kind === "retried" || kind === "dead") figures[kind] += value;
  }
  return [...found]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([handler, figures]) => ({ handler, ...figures, waiting: waiting.get(handler) ?? null }));
}

type HandlerFigures = { -readonly [K in keyof Omit<HandlerReport, "handler" | "waiting">]: number };

async function backlogOf(group: ProcessGroup): Promise<OperatorAnswers["queue.backlog"]> {
  const [said] = await group.question({ about: "queue.backlog" }, "one");
  return said !== undefined && "answer" in said ? (said.answer as OperatorAnswers["queue.backlog"]) : [];
}

function whenAborted(signal: AbortSignal): Promise<[]> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve([]);
    signal.addEventListener("abort", () => resolve([]), { once: true });
  });
}

async function metricsOf(port: number, signal: AbortSignal): Promise<string> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/metrics`, { signal, headers: { connection: "close" } });
    return response.ok ? await response.text() : "";
  } catch {
    return "";
  }
}

/** Lines such as `queue_handler{handler="mail.send",kind="done"} 12`. */
function figuresIn(text: string): { handler: string; kind: string; value: number }[] {
  const lines = text.matchAll(/^queue_handler\{handler="([^"]*)",kind="(\w+)"\} (\d+(?:\.\d+)?)$/gm);
  return [...lines].map(([, handler = "", kind = "", value]) => ({ handler, kind, value: Number(value) }));
}
