/** People who count and read at random, each request at a random process, and what they saw that was too old. */
import { randomUUID } from "node:crypto";
import { seededRandom } from "../../../src/kernel/random.ts";

/** What was seen. */
export interface Staleness {
  readonly reads: number;
  readonly writes: number;
  /** Requests that were not answered with 200. */
  readonly failures: number;
  /** Reads by somebody whose own acknowledged write they do not show. */
  readonly staleOwnReads: readonly string[];
  /** The longest that a write had been acknowledged when a read began that does not show it. */
  readonly staleMsMax: number;
}

/** Runs until the signal, or for `ms`. Seeded: the same requests in each person's order. */
export async function checkStaleness(options: {
  readonly addresses: readonly string[];
  readonly seed: number;
  readonly people: number;
  readonly keys: number;
  readonly ms: number;
}): Promise<Staleness> {
  const { addresses, seed, people, keys, ms } = options;
  const endsAt = performance.now() + ms;
  const acknowledged = new Map<string, number[]>();
  const counts = { reads: 0, writes: 0, failures: 0 };
  const staleOwnReads: string[] = [];
  let staleMsMax = 0;

  /** `acknowledged[key][value]` is when the value was acknowledged; a read that gives less is that stale. */
  function judge(key: string, value: number, since: number): void {
    const times = acknowledged.get(key) ?? [];
    for (let later = value + 1; later < times.length; later++) {
      const at = times[later];
      if (at !== undefined) staleMsMax = Math.max(staleMsMax, since - at);
    }
  }

  async function person(index: number): Promise<void> {
    const random = seededRandom(seed * 1_000 + index);
    const pick = <T>(list: readonly T[]) => list[Math.floor(random.next() * list.length)] as T;
    const names = Array.from({ length: keys }, (_, key) => `k${key}`);
    const own = new Map<string, number>();
    let cookie = "";
    const ask = async (method: string, path: string, body?: unknown) => {
      const url = pick(addresses);
      const answer = await fetch(`${url}${path}`, {
        method,
        headers: { cookie, origin: url, ...(body === undefined ? {} : { "content-type": "application/json" }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      const set = answer.headers.get("set-cookie");
      if (set !== null) cookie = set.split(";", 1)[0] as string;
      return { url, status: answer.status, text };
    };
    while ((await ask("POST", "/sign-in", { user: randomUUID() })).status !== 200) {
      if (performance.now() > endsAt) return;
    }
    while (performance.now() < endsAt) {
      const key = pick(names);
      const kind = random.next();
      const since = performance.now();
      if (kind < 0.25) {
        const { status, text } = await ask("POST", `/counters/${key}`, {});
        if (status !== 200) {
          counts.failures++;
          continue;
        }
        counts.writes++;
        const times = acknowledged.get(key) ?? [];
        acknowledged.set(key, times);
        times[Number(text)] = performance.now();
        own.set(key, Number(text));
        continue;
      }
      const isOwn = kind < 0.8;
      const { url, status, text } = await ask("GET", `${isOwn ? "/counters" : "/open"}/${key}`);
      if (status !== 200) {
        counts.failures++;
        await new Promise((resolve) => setTimeout(resolve, 5));
        continue;
      }
      counts.reads++;
      judge(key, Number(text), since);
      const mine = own.get(key) ?? 0;
      if (isOwn && Number(text) < mine) {
        staleOwnReads.push(`person ${index} wrote ${key} = ${mine} and read ${text} at ${url}`);
      }
    }
  }

  await Promise.all(Array.from({ length: people }, (_, index) => person(index)));
  return { ...counts, staleOwnReads, staleMsMax };
}
