/** A bounded set of tags to invalidate. */
import type { InvalidatedTags } from "./invalidation-channel.ts";

/** Tags, which past the bound become everything. */
export class TagSet {
  private tags = new Set<string>();
  private isEverything = false;
  private readonly tagsMax: number;

  constructor(tagsMax: number) {
    this.tagsMax = tagsMax;
  }

  get isEmpty(): boolean {
    return this.tags.size === 0 && !this.isEverything;
  }

  hasAny(tags: readonly string[]): boolean {
    if (this.isEmpty) return false;
    return this.isEverything || tags.some((tag) => this.tags.has(tag));
  }

  add(tags: InvalidatedTags): void {
    if (tags === "everything") this.isEverything = true;
    else for (const tag of tags) this.tags.add(tag);
    if (this.tags.size > this.tagsMax) this.isEverything = true;
    if (this.isEverything) this.tags.clear();
  }

  take(): InvalidatedTags {
    const taken = this.isEverything ? "everything" : [...this.tags];
    this.tags = new Set();
    this.isEverything = false;
    return taken;
  }
}
