/**
 * One server as a child process.
 *
 * - *start*: in a process group of its own, so that the terminal's Ctrl-C reaches the launcher only; ready when its own
 *   probe says so. A start that ends before, or takes too long, is an error that shows the end of the log.
 * - *crash*: started again, after 100 ms the first time and twice as long each further time, up to 10 s; the count starts
 *   anew once it has run for 30 s. After 20 in a row it is left alone and shown as failed.
 * - *stop*: its signal, then SIGKILL when its time is over. Whatever is left of its group is killed.
 * - *lose*: killed with its group, and down until it is started again.
 * - *launcher killed*: a shell beside each child waits on a pipe that the launcher holds. When the pipe closes, the child
 *   is asked to end, and killed with its group after 8 s.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { UnavailableError } from "rungs";
import type { ComponentState, ProcessReport, Role } from "../component.ts";
import { Questions } from "../groups/questions.ts";
import { LogFile } from "./log-file.ts";

/** How to run one server. */
export interface ProcessPlan {
  readonly name: string;
  readonly role: Role;
  readonly command: string;
  readonly args: readonly string[];
  readonly folder: string;
  /** The whole environment; secrets belong here and never into `args`, which everybody on the machine can read. */
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly port: number | null;
  /** Default: the launcher's own user. */
  readonly user?: { readonly uid: number; readonly gid: number } | undefined;
  readonly logFolder: string;
  /** Runs before every start, also of one that crashed; default nothing. What it raises is a start that failed. */
  readonly prepare?: (signal: AbortSignal) => Promise<void>;
  /** One try of a real operation; raises when it is not ready. Tried again every 25 ms. */
  readonly probe: (signal: AbortSignal) => Promise<void>;
  readonly startTimeoutMs?: number;
  /** Default SIGTERM. */
  readonly stopSignal?: NodeJS.Signals;
  /** Until SIGKILL; default 10,000. */
  readonly stopTimeoutMs?: number;
  /** Lines of the log worth keeping; default all. */
  readonly keepLine?: (line: string) => boolean;
  /** Gets each line of standard output, which then does not go into the log. */
  readonly onLine?: (line: string) => void;
  /** Node, with a program that answers questions; default false. */
  readonly hasChannel?: boolean;
  /** After an unexpected end, and after the start that followed it. */
  readonly onChange?: (state: ComponentState) => void;
}

const startTimeoutMsDefault = 30_000;
const stopTimeoutMsDefault = 10_000;
const backOffMs = { first: 100, max: 10_000 };
const failuresMax = 20;
const stableMs = 30_000;

/** `$$` is the shell's number, which the server takes over by `exec`. */
const supervisor = `
{
  read -r _ <&3
  kill -TERM $$
  n=0
  while [ $n -lt 80 ] && kill -0 $$; do sleep 0.1; n=$((n + 1)); done
  kill -s KILL -- -$$
} </dev/null >/dev/null 2>&1 4<&- &
exec "$@" 3<&-
`;

/** A server that is kept running until it is stopped. */
export class ManagedProcess {
  state: ComponentState = "waiting";
  readonly log: LogFile;
  private readonly plan: ProcessPlan;
  private child: ChildProcess | undefined;
  private questions: Questions | undefined;
  private startedAtMs = 0;
  private crashes = 0;
  private failuresInRow = 0;
  private readonly stopping = new AbortController();
  /** Until it is lost. */
  private life = new AbortController();
  private stopped: Promise<void> | undefined;

  constructor(plan: ProcessPlan) {
    this.plan = plan;
    this.log = new LogFile(
      `${plan.logFolder}/${plan.name}.log`,
      plan.keepLine === undefined ? {} : { keep: plan.keepLine },
    );
  }

  /** Starts it. Raises `SERVER_START_FAILED` with the end of its log. */
  async start(signal: AbortSignal): Promise<void> {
    if (this.life.signal.aborted) this.life = new AbortController();
    this.state = "starting";
    this.failuresInRow = 0;
    await this.launch(AbortSignal.any([signal, this.stopping.signal, this.life.signal]));
    this.state = "ready";
  }

  /** Kills it with its group at once, and keeps it down until `start` is called again; resolves when it is gone. */
  async lose(): Promise<void> {
    this.life.abort(new Error(`${this.plan.name} is kept down`));
    this.state = "lost";
    const { child } = this;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    killGroup(child.pid);
    await gone;
  }

  /** Stops it; every caller waits for the same end. */
  stop(): Promise<void> {
    this.stopped ??= this.end();
    return this.stopped;
  }

  /** Ends it by force, for a process that no longer answers; it is then started again like after any crash. */
  kill(): void {
    this.child?.kill("SIGKILL");
  }

  /** Sends it a signal that is not its end, such as one to read its settings again. */
  signal(signal: NodeJS.Signals): void {
    this.child?.kill(signal);
  }

  /** Asks the program; raises like `Questions.ask`. */
  async ask(question: unknown): Promise<unknown> {
    if (this.questions !== undefined && this.child?.connected === true) return this.questions.ask(question);
    throw new UnavailableError("SERVER_START_FAILED", `${this.plan.name} does not run just now.`, { canRetry: true });
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  report(): ProcessReport[] {
    const { name, role, port } = this.plan;
    const { pid } = this;
    if (pid === undefined) return [];
    return [{ name, role, pid, port, state: this.state, crashes: this.crashes, startedAtMs: this.startedAtMs }];
  }

  private async launch(signal: AbortSignal): Promise<void> {
    const { plan } = this;
    await plan.prepare?.(signal);
    signal.throwIfAborted();
    const child = this.spawn();
    const ended = new AbortController();
    child.once("exit", () => ended.abort());
    const within = plan.startTimeoutMs ?? startTimeoutMsDefault;
    const deadline = performance.now() + within;
    const both = AbortSignal.any([signal, ended.signal]);
    try {
      while (!(await this.isReady(both, deadline))) {
        signal.throwIfAborted();
        if (ended.signal.aborted) throw this.failure(`it ended ${howOf(child)}`);
        if (performance.now() > deadline) throw this.failure(`it was not ready within ${within} ms`);
        await sleep(25, undefined, { signal: both }).catch(() => {});
      }
    } catch (error) {
      await this.endChild(child);
      throw error;
    }
    this.log.note(`ready after ${Date.now() - this.startedAtMs} ms as process ${child.pid}`);
    child.once("exit", () => this.onCrash(child));
    // It may have ended between its last answer and now.
    if (child.exitCode !== null || child.signalCode !== null) this.onCrash(child);
  }

  private async isReady(signal: AbortSignal, deadline: number): Promise<boolean> {
    if (signal.aborted) return false;
    const left = Math.max(1, Math.min(5_000, Math.round(deadline - performance.now())));
    return this.plan.probe(AbortSignal.any([signal, AbortSignal.timeout(left)])).then(
      () => !signal.aborted,
      () => false,
    );
  }

  private spawn(): ChildProcess {
    const { command, args, folder, environment, user, onLine, hasChannel = false } = this.plan;
    this.startedAtMs = Date.now();
    const child = spawn("/bin/sh", ["-c", supervisor, "rungs", command, ...args], {
      cwd: folder,
      env: environment,
      ...(user === undefined ? {} : { uid: user.uid, gid: user.gid }),
      detached: true,
      stdio: ["ignore", "pipe", "pipe", "pipe", ...(hasChannel ? (["ipc"] as const) : [])],
    });
    this.child = child;
    this.questions = hasChannel ? new Questions(child) : undefined;
    child.once("error", (error) => this.log.note(`could not be started: ${error.message}`));
    // The pipe breaks when the child ends first.
    child.stdio[3]?.on("error", () => {});
    child.stderr?.setEncoding("utf8").on("data", (text: string) => this.log.write(text));
    let rest = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      if (onLine === undefined) return this.log.write(text);
      const lines = `${rest}${text}`.split("\n");
      rest = (lines.pop() ?? "").slice(-65_536);
      for (const line of lines) onLine(line);
    });
    child.once("exit", () => {
      // Workers that a killed master left behind, and the shell that watched it.
      if (child.pid !== undefined) killGroup(child.pid);
      (child.stdio[3] as Writable | null)?.destroy();
      if (this.child === child) this.child = undefined;
      this.log.note(`ended ${howOf(child)}`);
    });
    return child;
  }

  private onCrash(child: ChildProcess): void {
    if (this.stopping.signal.aborted || this.life.signal.aborted || this.state === "restarting") return;
    this.crashes++;
    if (Date.now() - this.startedAtMs > stableMs) this.failuresInRow = 0;
    this.state = "restarting";
    this.log.note(`crashed: it ended ${howOf(child)}`);
    this.plan.onChange?.("restarting");
    void this.restart();
  }

  private async restart(): Promise<void> {
    const signal = AbortSignal.any([this.stopping.signal, this.life.signal]);
    while (!signal.aborted && this.failuresInRow < failuresMax) {
      const waitMs = Math.min(backOffMs.max, backOffMs.first * 2 ** this.failuresInRow);
      this.failuresInRow++;
      try {
        await sleep(waitMs, undefined, { signal });
        await this.launch(signal);
        this.state = "ready";
        this.plan.onChange?.("ready");
        return;
      } catch (error) {
        if (!signal.aborted) this.log.note(error instanceof Error ? error.message : String(error));
      }
    }
    if (signal.aborted) return;
    this.state = "failed";
    this.plan.onChange?.("failed");
  }

  private async end(): Promise<void> {
    this.stopping.abort(new Error(`${this.plan.name} is being stopped`));
    if (this.state !== "waiting") this.state = "draining";
    const { child } = this;
    if (child !== undefined) await this.endChild(child);
    this.state = "stopped";
  }

  private async endChild(child: ChildProcess): Promise<void> {
    const { stopSignal = "SIGTERM", stopTimeoutMs = stopTimeoutMsDefault } = this.plan;
    if (child.pid === undefined) return;
    const gone = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill(stopSignal);
    const timer = setTimeout(() => {
      this.log.note(`did not end within ${stopTimeoutMs} ms of ${stopSignal}; killed`);
      child.kill("SIGKILL");
    }, stopTimeoutMs);
    await gone;
    clearTimeout(timer);
  }

  private failure(reason: string): UnavailableError {
    const { name } = this.plan;
    return new UnavailableError(
      "SERVER_START_FAILED",
      `${name} did not start: ${reason}. Its log, ${this.log.path}, ends with:\n${this.log.tail(12)}`,
      { canRetry: false },
    );
  }
}

function howOf({ exitCode, signalCode }: ChildProcess): string {
  return signalCode === null ? `with code ${exitCode}` : `by ${signalCode}`;
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // Nothing is left of it.
  }
}
