/**
 * When each tag was last invalidated, as a number that counts invalidations. Bounded: of the tags that fell out only
 * the highest number is kept, and everything older counts as invalidated. So forgetting costs hits, never correctness.
 */
export class InvalidationLog {
  private readonly lastOf = new Map<string, number>();
  private readonly tagsMax: number;
  private floor = 0;
  private count = 0;

  constructor(tagsMax: number) {
    this.tagsMax = tagsMax;
  }

  /** Number of the latest invalidation. */
  get now(): number {
    return this.count;
  }

  invalidate(tags: readonly string[]): void {
    const number = ++this.count;
    for (const tag of tags) {
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

  /** Whether none of the tags was invalidated after number `asOf`. */
  isCurrent(tags: readonly string[], asOf: number): boolean {
    if (asOf === this.count) return true;
    if (asOf < this.floor) return false;
    for (const tag of tags) if ((this.lastOf.get(tag) ?? 0) > asOf) return false;
    return true;
  }
}
