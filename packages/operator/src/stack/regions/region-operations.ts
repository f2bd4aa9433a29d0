/**
 * What a person does with the regions of a stack: look, drain, evacuate, lose and return.
 *
 * One change at a time. Whatever is broken off in the middle, by the launcher's end too, leaves a state from which the same command
 * goes on: each looks at what is, and does what is missing.
 */
import { UnavailableError } from "rungs";
import { nearestName } from "rungs/topology";
import { NotFoundError } from "../../exit-code.ts";
import type { RegionsReport } from "../component.ts";
import type { Progress } from "../groups/process-group.ts";
import { type Evacuation, evacuate } from "./region-evacuation.ts";
import { loseRegion, returnRegion } from "./region-loss.ts";
import { reportOnRegions } from "./region-report.ts";
import type { RegionOperationsOptions, RegionParts } from "./region-setting.ts";

/** The operations. Names that are no region raise `NotFoundError`; what their state forbids `REGION_REFUSED`. */
export interface RegionOperations {
  report(signal: AbortSignal): Promise<RegionsReport>;
  drain(region: string, signal: AbortSignal): Promise<void>;
  undrain(region: string, signal: AbortSignal): Promise<void>;
  /** Moves users, leaders and the sessions' master to another region; default the one that can take them. */
  evacuate(
    region: string,
    options: { readonly to?: string | undefined; readonly signal: AbortSignal; readonly progress: Progress },
  ): Promise<Evacuation>;
  /** Kills all of it, and keeps it down. */
  lose(region: string, progress: Progress): Promise<void>;
  /** Starts what was lost; resolves when its servers follow. */
  return(region: string, options: { readonly signal: AbortSignal; readonly progress: Progress }): Promise<void>;
  /** Breaks off what is under way: the stack is being stopped. */
  close(): void;
}

/** Makes them. */
export function regionOperations(options: RegionOperationsOptions): RegionOperations {
  const { regions, dns } = options;
  const names = regions.map(({ name }) => name);
  const lost = new Set<string>();
  const closing = new AbortController();
  const alone = oneAtATime();
  const bounded = (signal: AbortSignal) => AbortSignal.any([signal, closing.signal]);
  const parts = (name: string): RegionParts => {
    const found = regions.find((region) => region.name === name);
    if (found !== undefined) return found;
    const meant = nearestName(name, names);
    throw new NotFoundError(
      `There is no region "${name}"${meant === undefined ? `; there are: ${names.join(", ")}` : `; did you mean ${meant}?`}`,
    );
  };
  const expectThere = (name: string) => {
    if (!lost.has(name)) return;
    throw refusal(`${name} is lost. Bring it back first: rungs regions return ${name}`);
  };
  /** Somebody has to be left for the users. */
  const expectOthers = (name: string, without: ReadonlySet<string>, what: string) => {
    if (names.some((other) => other !== name && !without.has(other))) return;
    throw refusal(`${name} is the last region that is left: the others are drained or lost. It cannot be ${what}.`);
  };
  const away = () => new Set([...lost, ...dns.drained()]);
  return {
    report: (signal) => reportOnRegions(options, lost, signal),
    drain: (name, signal) =>
      alone(async () => {
        parts(name);
        expectOthers(name, away(), "drained");
        await dns.drain([...dns.drained(), name], bounded(signal));
      }),
    undrain: (name, signal) =>
      alone(async () => {
        parts(name);
        await dns.drain(
          dns.drained().filter((other) => other !== name),
          bounded(signal),
        );
      }),
    evacuate: (name, { to, signal, progress }) =>
      alone(async () => {
        parts(name);
        expectThere(name);
        const target = to ?? names.find((other) => other !== name && !away().has(other));
        expectOthers(name, to === undefined ? away() : lost, "evacuated");
        expectTarget({ name, to: parts(target as string).name, lost, drained: dns.drained() });
        return evacuate({ ...options, from: name, to: target as string, signal: bounded(signal), progress });
      }),
    lose: (name, progress) =>
      alone(async () => {
        const own = parts(name);
        if (lost.has(name)) return;
        expectOthers(name, lost, "lost");
        lost.add(name);
        await loseRegion({ ...options, own, progress });
      }),
    return: (name, { signal, progress }) =>
      alone(async () => {
        const own = parts(name);
        if (!lost.has(name)) {
          throw refusal(`${name} is not lost: there is nothing to bring back.`);
        }
        await returnRegion({ ...options, own, signal: bounded(signal), progress });
        lost.delete(name);
      }),
    close: () => closing.abort(new Error("The stack is being stopped.")),
  };
}

/** Raises `OVERLOADED` for work that comes while other work is under way. */
function oneAtATime() {
  let isBusy = false;
  return async <T>(work: () => Promise<T>): Promise<T> => {
    if (isBusy) {
      throw new UnavailableError(
        "OVERLOADED",
        "Another change of the regions is under way; try again when it is done.",
        {
          canRetry: true,
        },
      );
    }
    isBusy = true;
    try {
      return await work();
    } finally {
      isBusy = false;
    }
  };
}

/** The state of the regions forbids it. */
function refusal(message: string): UnavailableError {
  return new UnavailableError("REGION_REFUSED", message, { canRetry: false });
}

function expectTarget(options: {
  readonly name: string;
  readonly to: string;
  readonly lost: ReadonlySet<string>;
  readonly drained: readonly string[];
}): void {
  const { name, to, lost, drained } = options;
  const refuse = (why: string) => {
    throw refusal(`${name} cannot be evacuated to ${to}: ${why}.`);
  };
  if (to === name) refuse("that is the same region");
  if (lost.has(to)) refuse(`it is lost. Bring it back first: rungs regions return ${to}`);
  if (drained.includes(to))
    refuse(`it is drained, so no users would be sent there. First: rungs regions undrain ${to}`);
}
