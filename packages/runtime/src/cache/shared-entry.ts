/**
 * Entries as bytes: one that names the form, then V8's structured clone of the fields, compressed where that pays.
 *
 * V8's form keeps dates, byte arrays, maps and undefined as what they are, as the in-process level does, and was measured at
 * twice the speed of JSON for rows with dates. Newer versions of Node read what older ones wrote; what cannot be read is a miss.
 */
import { promisify } from "node:util";
import { deserialize, serialize } from "node:v8";
import { constants, zstdCompress, zstdDecompress, zstdDecompressSync } from "node:zlib";

/** An entry as all processes share it. Times in milliseconds. */
export interface SharedEntry {
  readonly key: string;
  /** Number up to which the loader had heard all invalidations when the load began. */
  readonly asOf: number;
  readonly tags: readonly string[];
  /** From the load on: fresh, then stale, then in grace. Their sum is the entry's life. */
  readonly freshMs: number;
  readonly staleMs: number;
  readonly graceMs: number;
  /** Undefined for a negative entry. */
  readonly value: unknown;
  /** The value cannot be shared, for its size or kind: each process loads it for itself. */
  readonly isWithheld: boolean;
}

const forms = { plain: 1, zstd: 2 } as const;
const compress = promisify(zstdCompress);
const decompress = promisify(zstdDecompress);
/** Level 1: measured at 0.1 ms for 17 KB of rows, to a ninth; higher levels save little more. */
const compression = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
/** Bound on what a few bytes may become. */
const inflating = { maxOutputLength: 64 * 1024 * 1024 };
/** Up to here the way to another thread takes longer than the work: 28 us for 1.8 KB that become 17. */
const inflateHereBytesMax = 8 * 1024;

/** Bytes of an entry; raises when it holds what cannot be copied, such as a function. */
export async function encodeEntry(entry: SharedEntry, { compressFromBytes }: { readonly compressFromBytes: number }) {
  const { key, asOf, tags, freshMs, staleMs, graceMs, value, isWithheld } = entry;
  const plain = serialize([key, asOf, tags, freshMs, staleMs, graceMs, isWithheld, value]);
  if (plain.length < compressFromBytes) return Buffer.concat([Buffer.from([forms.plain]), plain]);
  return Buffer.concat([Buffer.from([forms.zstd]), await compress(plain, compression)]);
}

async function inflate(bytes: Buffer): Promise<Buffer> {
  return bytes.length <= inflateHereBytesMax ? zstdDecompressSync(bytes, inflating) : decompress(bytes, inflating);
}

/** The entry; raises for bytes that are none. */
export async function decodeEntry(bytes: Buffer): Promise<SharedEntry> {
  const [form] = bytes;
  if (form !== forms.plain && form !== forms.zstd) throw new Error(`A cached value has the unknown form ${form}.`);
  const body = bytes.subarray(1);
  const plain = form === forms.plain ? body : await inflate(body);
  const fields = deserialize(plain) as unknown[];
  if (!Array.isArray(fields) || fields.length !== 8 || !Array.isArray(fields[2])) {
    throw new Error("A cached value does not hold an entry.");
  }
  const [key, asOf, tags, freshMs, staleMs, graceMs, isWithheld, value] = fields;
  return { key, asOf, tags, freshMs, staleMs, graceMs, isWithheld, value } as SharedEntry;
}
