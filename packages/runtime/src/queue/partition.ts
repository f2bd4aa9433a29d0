/** Which sequence a message is in, and which process works on which sequence. Pure, so that all processes come to the same answer. */

/**
 * The partition of a message, from 0 to `partitions` - 1: by its key, so that messages of one key stay in order; without a key by its
 * id, so that they spread, and one that is published again goes where it went before.
 */
export function partitionOf(message: { readonly key: string | null; readonly id: string }, partitions: number): number {
  return hash32(message.key === null ? `id ${message.id}` : `key ${message.key}`) % partitions;
}

/**
 * Who works on each partition of a handler: `owners[n]` is the member that has partition n; empty when there are no members.
 *
 * Method: rendezvous hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998) with bounded loads: pairs
 * of member and partition by falling score, each taken while its member has fewer than its even share. So no member has more than one
 * partition more than another, all come to the same answer whatever order they learnt of each other in, and few partitions move
 * when a member comes or goes.
 */
export function ownersOf(options: {
  readonly handler: string;
  readonly partitions: number;
  readonly members: readonly string[];
}): readonly string[] {
  const { handler, partitions } = options;
  const members = [...new Set(options.members)];
  if (members.length === 0) return [];
  const pairs = members.flatMap((member) =>
    Array.from({ length: partitions }, (_, partition) => ({
      member,
      partition,
      score: hash32(`${member} ${handler} ${partition}`),
    })),
  );
  pairs.sort((a, b) => b.score - a.score || a.partition - b.partition || (a.member < b.member ? -1 : 1));
  const least = Math.floor(partitions / members.length);
  let extras = partitions % members.length;
  const held = new Map<string, number>();
  const owners = new Array<string>(partitions);
  for (const { member, partition } of pairs) {
    if (owners[partition] !== undefined) continue;
    const has = held.get(member) ?? 0;
    if (has > least || (has === least && extras === 0)) continue;
    if (has === least) extras--;
    held.set(member, has + 1);
    owners[partition] = member;
  }
  return owners;
}

/** FNV-1a over UTF-16 units, mixed at the end by murmur3's finaliser: the low bits of FNV alone spread badly over powers of two. */
function hash32(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
