/**
 * When each tag was last invalidated, as a number that only grows. Bounded: of the tags that fell out only the highest number
 * is kept, and everything older counts as invalidated. So forgetting costs hits, never correctness.
 */
export class InvalidationLog {
  private readonly lastOf = new Map<string, number>();
  private readonly tagsMax: number;
  private floor = 0;
  private newest = 0;

  constructor(tagsMax: number) {
    this.tagsMax = tagsMax;
  }

  /** Number of the latest invalidation. */
  get now(): number {
    return this.newest;
  }

  /** Notes an invalidation under the next number. */
  invalidate(tags: readonly string[]): void {
    this.note(tags, this.newest + 1);
  }

  /** Notes an invalidation under the number others know it by; in any order. */
  note(tags: readonly string[], number: number): void {
    this.newest = Math.max(this.newest, number);
    for (const tag of tags) {
      if ((this.lastOf.get(tag) ?? 0) >= number) continue;
      // Deleting first moves the tag to the end, so the map stays ordered by age.
      this.lastOf.delete(tag);
      this.lastOf.set(tag, number);
    }
    while (this.lastOf.size > this.tagsMax) {
      const [oldest, at] = this.lastOf.entries().next().value as [string, number];
      this.lastOf.delete(oldest);
      this.floor = Math.max(this.floor, at);
    }
  }

  /** Everything before counts as invalidated, in one step; by default under the next number. */
  invalidateEverything(number = this.newest + 1): void {
    this.newest = Math.max(this.newest, number);
    this.floor = Math.max(this.floor, number);
    if (this.floor === this.newest) this.lastOf.clear();
  }

  /** Whether none of the tags was invalidated after number `asOf`. */
  isCurrent(tags: readonly string[], asOf: number): boolean {
    if (asOf < this.floor) return false;
    if (asOf >= this.newest) return true;
    for (const tag of tags) if ((this.lastOf.get(tag) ?? 0) > asOf) return false;
    return true;
  }

  /** Which of the tags was invalidated after number `asOf`, or "everything"; undefined when none was. */
  endedBy(tags: readonly string[], asOf: number): string | undefined {
    if (asOf < this.floor) return "everything";
    return tags.find((tag) => (this.lastOf.get(tag) ?? 0) > asOf);
  }
}
