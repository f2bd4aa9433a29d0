/**
 * Which node a key belongs to, such that a node more or less moves only its own share of the keys.
 *
 * Ketama's ring: each node stands at 160 places, four from each of 40 MD5 sums of `<node>-<n>`; a key belongs to the first place at
 * or after the first four bytes of its own MD5 sum. When that node is down it belongs to the next one that is not.
 * Source: R. Jones, "libketama: Consistent Hashing library for memcached clients", 2007.
 */
import { createHash } from "node:crypto";

const sumsPerNode = 40;

export class HashRing<N> {
  private readonly places: readonly { readonly at: number; readonly node: N }[];

  constructor(nodes: readonly { readonly name: string; readonly node: N }[]) {
    const places = nodes.flatMap(({ name, node }) =>
      Array.from({ length: sumsPerNode }, (_, index) => md5(`${name}-${index}`)).flatMap((sum) =>
        [0, 4, 8, 12].map((offset) => ({ at: sum.readUInt32LE(offset), node })),
      ),
    );
    this.places = places.sort((left, right) => left.at - right.at);
  }

  /** The key's node; of those that are up, the first on the way around. Undefined when none is. */
  nodeOf(key: string, isUp: (node: N) => boolean): N | undefined {
    const { places } = this;
    const start = this.firstAtOrAfter(md5(key).readUInt32LE(0));
    for (let step = 0; step < places.length; step++) {
      const node = places[(start + step) % places.length]?.node as N;
      if (isUp(node)) return node;
    }
    return undefined;
  }

  private firstAtOrAfter(hash: number): number {
    let low = 0;
    let high = this.places.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.places[middle]?.at ?? 0) < hash) low = middle + 1;
      else high = middle;
    }
    return low % this.places.length;
  }
}

function md5(text: string): Buffer {
  return createHash("md5").update(text).digest();
}
