/**
 * Who gets which partitions, by Kafka's cooperative method (KIP-429): everybody tells what they hold; a partition that is to move is
 * first given to nobody, its holder lets go of it in its own time and joins again, and then it goes to the other.
 *
 * The leader of the group decides: equal shares, which differ by one at most, and as few moves as that takes.
 */

/** The protocol's name within the group; all members must speak the same. */
export const assignmentProtocol = "rungs";

/** What a member tells when it joins. */
export interface Claim {
  readonly memberId: string;
  /** Partitions it holds, and of which generation that is. Two who claim one: the later generation is right. */
  readonly owned: readonly number[];
  readonly generation: number;
}

/** Gives each member its partitions of `count`. */
export function assignPartitions(claims: readonly Claim[], count: number): Map<string, number[]> {
  const holders = new Map<number, Claim>();
  for (const claim of claims) {
    for (const partition of claim.owned) {
      const holder = holders.get(partition);
      if (partition < count && (holder === undefined || holder.generation < claim.generation)) {
        holders.set(partition, claim);
      }
    }
  }
  const heldBy = (id: string) =>
    [...holders].flatMap(([partition, { memberId }]) => (memberId === id ? [partition] : []));
  const members = claims
    .map(({ memberId }) => ({ memberId, held: heldBy(memberId).sort((a, b) => a - b), kept: [] as number[] }))
    .sort((a, b) => b.held.length - a.held.length || (a.memberId < b.memberId ? -1 : 1));
  const quota = (index: number) => Math.floor(count / members.length) + (index < count % members.length ? 1 : 0);
  members.forEach((member, index) => {
    member.kept = member.held.slice(0, quota(index));
  });
  const taken = new Set(members.flatMap(({ kept }) => kept));
  const free = Array.from({ length: count }, (_, partition) => partition).filter((each) => !taken.has(each));
  return new Map(
    members.map(({ memberId, kept }, index) => {
      const added = free.splice(0, quota(index) - kept.length);
      // Still with another: that one is told first, by getting less than it holds.
      return [memberId, [...kept, ...added.filter((partition) => !holders.has(partition))]];
    }),
  );
}

/** Kafka's ConsumerProtocolSubscription, version 0: version, topics, bytes of ours. */
export function claimBytes(topic: string, { owned, generation }: Omit<Claim, "memberId">): Uint8Array {
  const name = Buffer.from(topic);
  const data = Buffer.from(JSON.stringify({ owned, generation }));
  return Buffer.concat([int16(0), int32(1), int16(name.length), name, int32(data.length), data]);
}

/** Reads what {@link claimBytes} wrote. What cannot be read claims nothing. */
export function claimOf(memberId: string, bytes: Uint8Array | null): Claim {
  try {
    const view = Buffer.from(bytes ?? []);
    const nameLength = view.readInt16BE(6);
    const data = view.subarray(8 + nameLength + 4);
    const { owned, generation } = JSON.parse(data.toString()) as Omit<Claim, "memberId">;
    return { memberId, owned, generation };
  } catch {
    return { memberId, owned: [], generation: -1 };
  }
}

/** Kafka's ConsumerProtocolAssignment, version 0: version, topics with their partitions, no bytes of ours. */
export function assignmentBytes(topic: string, partitions: readonly number[]): Uint8Array {
  const name = Buffer.from(topic);
  const list = partitions.map((partition) => int32(partition));
  return Buffer.concat([int16(0), int32(1), int16(name.length), name, int32(list.length), ...list, int32(-1)]);
}

/** Reads what {@link assignmentBytes} wrote. */
export function assignmentOf(bytes: Uint8Array): number[] {
  const view = Buffer.from(bytes);
  if (view.length < 10) return [];
  const start = 8 + view.readInt16BE(6);
  const count = view.readInt32BE(start);
  return Array.from({ length: count }, (_, index) => view.readInt32BE(start + 4 + 4 * index));
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}
