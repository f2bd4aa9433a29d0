/** Addresses and networks of both families as numbers, so that prefixes compare. */
import { isIP } from "node:net";

/** A network; a single address is one with the longest prefix. */
export interface Network {
  readonly family: 4 | 6;
  /** The first address, as a number of 32 or 128 bits. */
  readonly first: bigint;
  /** Bits that all its addresses share. */
  readonly prefixLength: number;
}

/** Bits of an address. */
const addressBits = { 4: 32, 6: 128 } as const;

/**
 * Reads `192.0.2.0/24`, `2001:db8::/32` or a single address; undefined when it is neither, or has bits behind its prefix. An IPv4
 * address written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 address.
 */
export function parseNetwork(text: string): Network | undefined {
  const [, address = "", length] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const whole = parseAddress(address);
  if (whole === undefined) return undefined;
  if (length === undefined) return whole;
  const bits = addressBits[whole.family];
  const isMapped = whole.family === 4 && address.includes(":");
  const prefixLength = Number(length) - (isMapped ? 96 : 0);
  if (prefixLength < 0 || prefixLength > bits) return undefined;
  const behind = (1n << BigInt(bits - prefixLength)) - 1n;
  return (whole.first & behind) === 0n ? { ...whole, prefixLength } : undefined;
}

/** The network of this prefix length around an address; for a client's subnet, whose further bits do not count (RFC 7871). */
export function networkAround(text: string, prefixLength: number): Network | undefined {
  const whole = parseAddress(text);
  if (whole === undefined || prefixLength < 0 || prefixLength > addressBits[whole.family]) return undefined;
  const behind = BigInt(addressBits[whole.family] - prefixLength);
  return { family: whole.family, first: (whole.first >> behind) << behind, prefixLength };
}

/** Whether all addresses of `inner` are in `outer`. */
export function contains(outer: Network, inner: Network): boolean {
  if (outer.family !== inner.family || outer.prefixLength > inner.prefixLength) return false;
  const behind = BigInt(addressBits[outer.family] - outer.prefixLength);
  return outer.first >> behind === inner.first >> behind;
}

/** Bits that two networks of one family have in common, from the first one on; at most the shorter prefix. */
export function commonBits(a: Network, b: Network): number {
  const bits = addressBits[a.family];
  const differing = (a.first ^ b.first).toString(2);
  const same = a.first === b.first ? bits : bits - differing.length;
  return Math.min(same, a.prefixLength, b.prefixLength);
}

function parseAddress(text: string): Network | undefined {
  const kind = isIP(text);
  if (kind === 4) return { family: 4, first: numberOf(text.split("."), 8n, 10), prefixLength: 32 };
  // A zone such as %eth0 is no part of an address that anybody else could use.
  if (kind !== 6 || text.includes("%")) return undefined;
  const first = numberOf(groupsOf(text), 16n, 16);
  return first >> 32n === 0xffffn
    ? { family: 4, first: first & 0xffff_ffffn, prefixLength: 32 }
    : { family: 6, first, prefixLength: 128 };
}

function numberOf(parts: readonly string[], bits: bigint, radix: number): bigint {
  return parts.reduce((sum, part) => (sum << bits) | BigInt(Number.parseInt(part, radix)), 0n);
}

/** The eight groups of an IPv6 address that was found to be one. */
function groupsOf(text: string): string[] {
  const hex = text.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, (_, ...bytes: string[]) => {
    const [a, b, c, d] = bytes.map(Number) as [number, number, number, number];
    return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  });
  const [head = "", tail] = hex.split("::");
  const before = head === "" ? [] : head.split(":");
  if (tail === undefined) return before;
  const after = tail === "" ? [] : tail.split(":");
  return [...before, ...Array<string>(8 - before.length - after.length).fill("0"), ...after];
}
