/**
 * The processes of one group, such as the web processes of a stack, in places that the balancer knows.
 *
 * - *place*: a port, with or without a process. There are more places than processes, so that a new process can come before an old one
 *   goes, and so that scaling needs no change of the balancer.
 * - *rolling restart*: a new process starts in a free place; once it is ready and the balancer sends it requests, the old one is drained;
 *   one after the other. While the old one drains, the next new one starts already. Workers, to whom no balancer leads, drain too: they
 *   finish what they began, and hand back the rest.
 * - *scale*: the same, without the old ones, or without the new ones.
 * - *frozen process*: one that has not answered `/healthz` for 10 s is killed, and so started again.
 *
 * Restart and scale wait for each other: one at a time.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError, UnavailableError } from "rungs";
import { NotFoundError } from "../../exit-code.ts";
import type { Component, ProcessReport, Role } from "../component.ts";
import { statusOf } from "../process/http-probe.ts";
import { ManagedProcess, type ProcessPlan } from "../process/managed-process.ts";
import { publicAddress } from "../stack-plan.ts";
import { type Answered, toldOf } from "./questions.ts";

/** A place for a process. */
export interface Place {
  /** E.g. "web-3". */
  readonly name: string;
  readonly port: number;
  /** Default "127.0.0.1". */
  readonly host?: string;
}

/** What changes of a group tell as they go on. */
export type Progress = (text: string) => void;

export interface ProcessGroupOptions {
  /** E.g. "web". */
  readonly name: string;
  readonly role: Role;
  /** Default none. */
  readonly region?: string;
  /** One alone: a restart ends the old process before the new one starts. */
  readonly places: readonly Place[];
  /** Processes at the start. */
  readonly processes: number;
  readonly needs: readonly string[];
  readonly plan: string;
  /** How to run a process in a place. */
  readonly processIn: (place: Place) => ProcessPlan;
  /** What to type for so many processes when there are no places for them. */
  readonly startAgain: (processes: number) => string;
  /** See `BalancerComponent`; without a balancer there is nobody to wait for. */
  readonly balancer?: { settled(place: string): Promise<void>; leaving(place: string): Promise<void> };
  /** Hears of a process that does not start at first, in place of the start's failure: for development, where it may be mended. */
  readonly onFailure?: (error: unknown) => void;
  /** After a restart of the whole group: its code may be new. */
  readonly onReplaced?: () => Promise<void>;
  /** How long a process may be silent; default 10,000 ms; 0: for ever. */
  readonly silentMsMax?: number;
}

/** The group as one component. */
export interface ProcessGroup extends Component {
  /** Replaces every process; requests go on being answered. */
  restart(progress: Progress): Promise<void>;
  /** Replaces the process of that name; the new one has another. Raises `NOT_FOUND` when there is none. */
  restartOne(name: string, progress: Progress): Promise<void>;
  /** Brings the number of processes to `processes`. */
  scale(processes: number, progress: Progress): Promise<void>;
  /** Whether a process is meant to listen on this port. */
  isInUse(port: number): boolean;
  /** Asks every process that is ready, or the first of them that answers. */
  question(question: unknown, of: "all" | "one"): Promise<Answered<unknown>[]>;
}

const silentMsMaxDefault = 10_000;
const askEveryMs = 1_000;

/** Makes the group. */
export function processGroup(options: ProcessGroupOptions): ProcessGroup {
  return new Group(options);
}

class Group implements ProcessGroup {
  readonly name: string;
  readonly role: Role;
  readonly region?: string;
  readonly needs: readonly string[];
  readonly plan: string;
  private readonly options: ProcessGroupOptions;
  /** By place, in the order of their start. */
  private readonly running = new Map<Place, ManagedProcess>();
  private readonly stopping = new AbortController();
  private change: string | undefined;
  private isLost = false;
  /** Of the next start. */
  private wanted: number;
  private watching: NodeJS.Timeout | undefined;
  private readonly silentSince = new Map<ManagedProcess, number>();

  constructor(options: ProcessGroupOptions) {
    this.options = options;
    this.wanted = options.processes;
    this.name = options.name;
    this.role = options.role;
    if (options.region !== undefined) this.region = options.region;
    this.needs = options.needs;
    this.plan = options.plan;
  }

  async start(signal: AbortSignal): Promise<void> {
    this.isLost = false;
    const places = this.options.places.slice(0, this.wanted);
    await Promise.all(places.map((place) => this.startIn(place, signal))).catch((error: unknown) => {
      if (this.options.onFailure === undefined || signal.aborted) throw error;
      this.options.onFailure(error);
    });
    this.watching = setInterval(() => void this.askAll(), askEveryMs);
  }

  async stop(): Promise<void> {
    clearInterval(this.watching);
    this.stopping.abort(new Error("The stack is being stopped."));
    await Promise.all([...this.running.values()].map((process) => process.stop()));
  }

  async lose(): Promise<void> {
    if (this.isLost) return;
    this.isLost = true;
    clearInterval(this.watching);
    const lost = [...this.running.values()];
    this.wanted = Math.max(1, lost.length);
    this.running.clear();
    await Promise.all(lost.map((process) => process.lose()));
  }

  processes(): ProcessReport[] {
    return [...this.running.values()].flatMap((process) => process.report());
  }

  isInUse(port: number): boolean {
    return [...this.running.keys()].some((place) => place.port === port);
  }

  async question(question: unknown, of: "all" | "one"): Promise<Answered<unknown>[]> {
    const ready = [...this.running].filter(([, process]) => process.state === "ready");
    const askIt = ([place, process]: [Place, ManagedProcess]): Promise<Answered<unknown>> =>
      process.ask(question).then(
        (answer) => ({ process: place.name, answer }),
        (error: unknown) => ({ process: place.name, error: toldOf(error) }),
      );
    if (of === "all") return Promise.all(ready.map(askIt));
    const failures: Answered<unknown>[] = [];
    for (const entry of ready) {
      const said = await askIt(entry);
      if ("answer" in said) return [said];
      failures.push(said);
    }
    return failures.slice(-1);
  }

  restart(progress: Progress): Promise<void> {
    return this.alone("a restart", async () => {
      await this.replace([...this.running.keys()], progress);
      await this.options.onReplaced?.();
    });
  }

  restartOne(name: string, progress: Progress): Promise<void> {
    return this.alone("a restart", async () => {
      const place = [...this.running.keys()].find((each) => each.name === name);
      if (place === undefined) throw new NotFoundError(`${name} does not run.`);
      await this.replace([place], progress);
    });
  }

  scale(processes: number, progress: Progress): Promise<void> {
    return this.alone("a change of the number of processes", async () => {
      const { places } = this.options;
      const now = [...this.running.keys()];
      if (processes > places.length) {
        throw new ConfigError(
          "CONFIG_INVALID",
          `This stack has places for ${places.length} ${this.name} processes, and ${processes} are asked for. ${this.options.startAgain(processes)}`,
        );
      }
      if (processes > now.length) {
        const free = places.filter((place) => !this.running.has(place)).slice(0, processes - now.length);
        await this.bringUp(free);
        progress(`${free.map(({ name }) => name).join(", ")} ready`);
      } else {
        const leaving = now.slice(processes);
        if (leaving.length > 0) progress(`${leaving.map(({ name }) => name).join(", ")} drains`);
        await Promise.all(leaving.map((place) => this.drain(place)));
      }
    });
  }

  private async replace(old: readonly Place[], progress: Progress): Promise<void> {
    const { places } = this.options;
    if (places.length === 1) return this.restartInPlace(places[0] as Place);
    const drains: Promise<void>[] = [];
    try {
      for (const [index, place] of old.entries()) {
        const free = await this.freePlace();
        await this.bringUp([free]);
        progress(`${index + 1} of ${old.length}: ${free.name} is ready, ${place.name} drains`);
        drains.push(this.drain(place));
      }
    } finally {
      // A new process that does not start ends the restart; the old ones that are left go on.
      await Promise.all(drains);
    }
  }

  /** One address, and so one process at a time: clients wait, or are refused, for the time between. */
  private async restartInPlace(place: Place): Promise<void> {
    await this.drain(place);
    await this.startIn(place, this.stopping.signal);
  }

  private async bringUp(places: readonly Place[]): Promise<void> {
    const { signal } = this.stopping;
    await Promise.all(places.map((place) => this.startIn(place, signal)));
    signal.throwIfAborted();
    await Promise.all(places.map((place) => this.options.balancer?.settled(place.name)));
  }

  private async startIn(place: Place, signal: AbortSignal): Promise<void> {
    this.stopping.signal.throwIfAborted();
    if (this.isLost)
      throw new UnavailableError("SERVER_START_FAILED", `${this.name} is kept down.`, { canRetry: true });
    const process = new ManagedProcess(this.options.processIn(place));
    this.running.set(place, process);
    try {
      await process.start(signal);
    } catch (error) {
      this.running.delete(place);
      throw error;
    }
  }

  private async drain(place: Place): Promise<void> {
    const process = this.running.get(place);
    await this.options.balancer?.leaving(place.name);
    await process?.stop();
    this.running.delete(place);
  }

  /** Waits for a draining process when all places are taken. */
  private async freePlace(): Promise<Place> {
    for (;;) {
      const free = this.options.places.find((place) => !this.running.has(place));
      if (free !== undefined) return free;
      this.stopping.signal.throwIfAborted();
      await sleep(20);
    }
  }

  private async alone(what: string, work: () => Promise<void>): Promise<void> {
    if (this.change !== undefined) {
      throw new UnavailableError("OVERLOADED", `${this.change} is under way already; try again when it is done.`, {
        canRetry: true,
      });
    }
    this.change = what;
    try {
      await work();
    } finally {
      this.change = undefined;
    }
  }

  private async askAll(): Promise<void> {
    const silentMsMax = this.options.silentMsMax ?? silentMsMaxDefault;
    if (silentMsMax === 0) return;
    await Promise.all([...this.running].map(([place, process]) => this.ask(place, process, silentMsMax)));
  }

  private async ask(place: Place, process: ManagedProcess, silentMsMax: number): Promise<void> {
    if (process.state !== "ready") {
      this.silentSince.delete(process);
      return;
    }
    const { pid } = process;
    const url = `${publicAddress(place.host ?? "127.0.0.1", place.port)}/healthz`;
    const isAnswered = await statusOf(url, AbortSignal.timeout(askEveryMs)).then(
      () => true,
      () => false,
    );
    if (isAnswered) this.silentSince.delete(process);
    else if (!this.silentSince.has(process)) this.silentSince.set(process, performance.now());
    const since = this.silentSince.get(process) ?? performance.now();
    if (performance.now() - since < silentMsMax || process.pid !== pid) return;
    process.log.note(`has not answered for ${silentMsMax} ms; killed`);
    this.silentSince.delete(process);
    process.kill();
  }
}
