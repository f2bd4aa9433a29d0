/** All groups of a stack's processes, found by name. */
import { nearestName } from "rungs/topology";
import { NotFoundError } from "../../exit-code.ts";
import type { ProcessReport } from "../component.ts";
import type { ProcessGroup, Progress } from "./process-group.ts";
import type { Answered } from "./questions.ts";

/** What commands do with the groups. */
export interface ProcessGroups {
  /** `web` first. */
  readonly all: readonly ProcessGroup[];
  /**
   * Replaces the processes of a group one by one, or one process by its name; requests go on being answered. Other groups are left
   * alone. Raises `NotFoundError` when nothing has that name.
   */
  restart(name: string, progress: Progress): Promise<void>;
  /** Brings the number of a group's processes to `processes`. Raises `NotFoundError` when there is no such group. */
  scale(name: string, processes: number, progress: Progress): Promise<void>;
  /** Asks every process that is ready, or the first of them that answers. */
  question(question: unknown, of: "all" | "one"): Promise<Answered<unknown>[]>;
  isInUse(port: number): boolean;
  processes(): ProcessReport[];
}

/** Joins them. */
export function processGroups(all: readonly ProcessGroup[]): ProcessGroups {
  const groupNames = all.map(({ name }) => name);
  const processes = () => all.flatMap((group) => group.processes());
  return {
    all,
    processes,
    async restart(name, progress) {
      const group = all.find((each) => each.name === name);
      if (group !== undefined) return group.restart(progress);
      const holder = all.find((each) => each.processes().some((process) => process.name === name));
      if (holder !== undefined) return holder.restartOne(name, progress);
      throw notThere(name, [...groupNames, ...processes().map((process) => process.name)]);
    },
    async scale(name, number, progress) {
      const group = all.find((each) => each.name === name);
      if (group === undefined) throw notThere(name, groupNames);
      return group.scale(number, progress);
    },
    async question(question, of) {
      if (of === "all") return (await Promise.all(all.map((group) => group.question(question, of)))).flat();
      const failures: Answered<unknown>[] = [];
      for (const group of all) {
        const said = await group.question(question, of);
        if (said.some((each) => "answer" in each)) return said;
        failures.push(...said);
      }
      return failures.slice(-1);
    },
    isInUse: (port) => all.some((group) => group.isInUse(port)),
  };
}

function notThere(name: string, known: readonly string[]): NotFoundError {
  const meant = nearestName(name, known);
  return new NotFoundError(
    `Nothing here is called "${name}"${meant === undefined ? `; there are: ${known.join(", ")}` : `; did you mean ${meant}?`}`,
  );
}
