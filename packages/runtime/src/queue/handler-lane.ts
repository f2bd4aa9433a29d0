/**
 * One handler's room in a process: its `concurrency`, and as much again to be claimed ahead when its tries are short, so that it need
 * not wait for the database in between. None while it is paused.
 */
import type { AttemptResult } from "./attempt.ts";
import type { NamedHandler } from "./handler.ts";
import type { ClaimedJob, Wanted } from "./job-store.ts";

/** Counters of one handler since the start of the process, and what it does now. */
export interface HandlerStats {
  readonly handler: string;
  readonly running: number;
  readonly claimed: number;
  readonly done: number;
  /** Not counted as tries: of a version that only newer processes know, or refused for lack of room in an outbox. */
  readonly putOff: number;
  readonly retried: number;
  readonly dead: number;
  /** Sum and count of the time between due and claimed, in ms. */
  readonly waitedMs: number;
  readonly delivered: number;
  /** Sum of the time of all tries, in ms. */
  readonly busyMs: number;
}

/** Tries shorter than this on average are claimed ahead. */
const shortTryMs = 50;

/** One handler's room and figures in this process, over all stores. */
export class Lane<C> {
  readonly handler: NamedHandler<C>;
  readonly waiting: (() => void)[] = [];
  /** Stores that found no room, first come first: each looks again, once, when there is some. */
  readonly denied = new Set<{ look(): void }>();
  /** Jobs claimed or asked for, not yet settled. */
  held = 0;
  running = 0;
  isPaused = false;
  private averageMs = shortTryMs;
  private readonly counts = { done: 0, putOff: 0, retried: 0, dead: 0, waitedMs: 0, delivered: 0, busyMs: 0 };

  constructor(handler: NamedHandler<C>) {
    this.handler = handler;
  }

  /** Room for new claims. When tries are short, none until nothing is claimed ahead any more, so that claims come in batches. */
  room(): number {
    const { concurrency } = this.handler.options;
    if (this.isPaused) return 0;
    if (this.averageMs >= shortTryMs) return Math.max(0, concurrency - this.held);
    return this.held <= concurrency ? concurrency * 2 - this.held : 0;
  }

  /** Takes room back. Gives those who found none before: they are to look now, first come first. */
  release(slots: number): readonly { look(): void }[] {
    this.held -= slots;
    if (slots === 0 || this.room() === 0) return [];
    const denied = [...this.denied];
    this.denied.clear();
    return denied;
  }

  /** Begins `start` when one of the handler's places is free; at once while it is paused, since nothing is done then. */
  enter(start: () => void): void {
    if (this.isPaused || this.running < this.handler.options.concurrency) {
      this.running++;
      start();
    } else this.waiting.push(start);
  }

  wanted(slots: number): Wanted {
    return { handler: this.handler.name, slots, version: this.handler.event.version };
  }

  /** Claimed jobs that have not begun find it paused, and are handed back. */
  pause(): void {
    if (this.isPaused) return;
    this.isPaused = true;
    for (const start of this.waiting.splice(0)) {
      this.running++;
      start();
    }
  }

  leave(): void {
    const next = this.waiting.shift();
    if (next === undefined) this.running--;
    else next();
  }

  note(job: ClaimedJob, result: AttemptResult, tookMs: number): void {
    const { counts } = this;
    if (result.outcome !== "lost" && result.outcome.kind === "putOff") {
      counts.putOff++;
      return;
    }
    this.averageMs += (tookMs - this.averageMs) / 8;
    counts.delivered++;
    counts.waitedMs += job.waitedMs;
    counts.busyMs += tookMs;
    const kind = result.outcome === "lost" ? "lost" : result.outcome.kind;
    if (kind === "done") counts.done++;
    if (kind === "retry") counts.retried++;
    if (kind === "dead") counts.dead++;
  }

  stats(): HandlerStats {
    return { handler: this.handler.name, running: this.running, claimed: this.held, ...this.counts };
  }
}
