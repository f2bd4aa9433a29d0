/** What must hold of a history's effects, and of what a store keeps in memory. */
import type { BrokerMessage } from "../../../src/queue/broker.ts";
import type { BrokerStore } from "../../../src/queue/broker-store.ts";

/** Steps of each handler, and whether on the message's own shard or the other. "plain" makes its effect without `once`. */
export const stepsOf: Readonly<Record<string, readonly (readonly [step: string, isOwn: boolean])[]>> = {
  one: [["", true]],
  two: [
    ["a", false],
    ["b", true],
  ],
  plain: [["", true]],
};

/** Effects as they were committed. */
export class EffectLog {
  /** How often each step of each message was made, in the order in which they were made first. */
  private readonly counts = new Map<string, number>();

  note({ id }: BrokerMessage, handler: string, step: string): void {
    const effect = `${id} ${handler} ${step}`;
    this.counts.set(effect, (this.counts.get(effect) ?? 0) + 1);
  }

  isDone({ id }: BrokerMessage, handler: string): boolean {
    return (stepsOf[handler] ?? []).every(([step]) => this.counts.has(`${id} ${handler} ${step}`));
  }

  /** `messages`: as published. Each step must have been made, once where that is promised, and first effects of a key in order. */
  violations(options: {
    readonly messages: readonly BrokerMessage[];
    readonly handler: string;
    /** Whether it was a dead letter for a while: then it lost its place. */
    readonly wasDead: (id: string, handler: string) => boolean;
  }): string[] {
    const { messages, handler, wasDead } = options;
    const found: string[] = [];
    const places = new Map([...this.counts.keys()].map((effect, place) => [effect, place]));
    for (const [step] of stepsOf[handler] ?? []) {
      const last = new Map<string, { readonly id: string; readonly place: number }>();
      for (const { id, key } of messages) {
        const effect = `${id} ${handler} ${step}`;
        const count = this.counts.get(effect) ?? 0;
        if (count === 0 || (count > 1 && handler !== "plain"))
          found.push(`effect of ${effect} was made ${count} times`);
        const place = places.get(effect);
        if (key === null || place === undefined || wasDead(id, handler)) continue;
        const before = last.get(key);
        if (before !== undefined && before.place > place) {
          found.push(`"${handler}" ${step}: ${id} of ${key} came before ${before.id}`);
        }
        last.set(key, { id, place: Math.max(place, before?.place ?? place) });
      }
    }
    return found;
  }
}

interface Inside {
  readonly waiting: ReadonlyMap<string, readonly unknown[]>;
  readonly underWay: ReadonlyMap<number, unknown>;
  readonly busy: ReadonlySet<string>;
  readonly parking: ReadonlyMap<string, number>;
  readonly crowded: ReadonlySet<string>;
}

/** What the store keeps, which is nobody's business but this checker's. */
export function insideOf(store: BrokerStore): Inside {
  return store as unknown as Inside;
}

/** Sizes of what must be empty when nothing is left to do. */
export function sizesOf(store: BrokerStore): Record<string, number> {
  const { waiting, underWay, busy, parking, crowded } = insideOf(store);
  return {
    "waiting deliveries": [...waiting.values()].flat().length,
    "deliveries under way": underWay.size,
    "busy keys": busy.size,
    "keys that are parked": parking.size,
    "crowded keys": crowded.size,
  };
}
