/**
 * When each tag was last invalidated in any process, by the numbers of the channel; also before this process started, and while it
 * could not hear. It is *complete* from its oldest number on, or being filled from what the channel remembers. What is older
 * counts as invalidated.
 */
import type { Logger } from "../kernel/log.ts";
import type { InvalidatedTags, InvalidationChannel } from "./invalidation-channel.ts";
import { InvalidationLog } from "./invalidation-log.ts";

export class InvalidationRecord {
  private readonly channel: InvalidationChannel;
  private readonly logger: Logger;
  private readonly log: InvalidationLog;
  /** Complete up to here; undefined while something may be missing. */
  private completeTo: number | undefined;
  private fillFrom = 0;
  private losses = 0;
  private filling: Promise<void> | undefined;

  constructor(options: { readonly channel: InvalidationChannel; readonly tagsMax: number; readonly log: Logger }) {
    this.channel = options.channel;
    this.logger = options.log;
    this.log = new InvalidationLog(options.tagsMax);
  }

  get isComplete(): boolean {
    return this.completeTo !== undefined;
  }

  /** Whether none of the tags was invalidated after the number. */
  isCurrent(tags: readonly string[], asOf: number): boolean {
    return this.log.isCurrent(tags, asOf);
  }

  /** See {@link InvalidationLog.endedBy}. */
  endedBy(tags: readonly string[], asOf: number): string | undefined {
    return this.log.endedBy(tags, asOf);
  }

  /** In any order. */
  note(tags: InvalidatedTags, number: number): void {
    if (tags === "everything") this.log.invalidateEverything(number);
    else this.log.note(tags, number);
  }

  /** Everything up to the number has been noted, if everything before was. */
  heard(number: number): void {
    if (this.completeTo !== undefined) this.completeTo = number;
  }

  /** Something may have been missed. */
  lose(): void {
    this.losses++;
    this.fillFrom = Math.max(this.fillFrom, this.completeTo ?? 0);
    this.completeTo = undefined;
  }

  /** Asks for what is missing, unless nothing is. When that fails it is left incomplete. Never raises. */
  fill(): Promise<void> {
    if (this.isComplete) return Promise.resolve();
    this.filling ??= this.tryToFill().finally(() => {
      this.filling = undefined;
    });
    return this.filling;
  }

  private async tryToFill(): Promise<void> {
    const { losses } = this;
    try {
      this.fillFrom = await this.readPages(this.fillFrom);
      if (losses === this.losses) this.completeTo = this.fillFrom;
    } catch (error) {
      this.logger.debug({ error }, "what was invalidated meanwhile is not known yet");
    }
  }

  /** Gives the number up to which everything is noted then. */
  private async readPages(from: number): Promise<number> {
    for (let after = from; ; ) {
      const { page, isLast, newest } = await this.channel.since(after);
      const [first] = page;
      // What came between is not remembered (0: nor what came ever before): all that counts as invalidated.
      const isGapless = first === undefined || (first.previous === after && after > 0);
      if (!isGapless) this.log.invalidateEverything(first.previous === 0 ? first.number : first.previous);
      for (const { tags, number } of page) this.note(tags, number);
      after = page.at(-1)?.number ?? after;
      if (!isLast) continue;
      if (newest !== after) this.log.invalidateEverything(newest);
      return newest;
    }
  }
}
