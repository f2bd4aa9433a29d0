/**
 * A database of countries for gdnsd, which understands MaxMind's layout only (MaxMind DB 2.0: a binary tree over the bits of an address,
 * whose leaves point to records). The free databases of ip-location-db are files of that format with one field, `country_code`;
 * gdnsd takes them and finds no country in them. So the records are written anew, with the continent, and the tree stays as it is but
 * for its leaves.
 */
import { ConfigError } from "rungs";
import { countryOf } from "rungs/dns";

/** A database in MaxMind's layout, and what it holds. */
export interface CountryDatabase {
  readonly content: Buffer;
  /** When its maker built it, in ms since 1970. */
  readonly builtAtMs: number;
  /** Codes with a continent, and codes that name no country, which get the answer of unknown places. */
  readonly countries: readonly string[];
  readonly unknownCodes: readonly string[];
}

/** Between tree and records, and between records and metadata (MaxMind DB 2.0). */
const separatorBytes = 16;
const metadataMark = Buffer.from("\xab\xcd\xefMaxMind.com", "latin1");
const metadataBytesMax = 128 * 1024;
/** Types of fields. */
const type = {
  pointer: 1,
  text: 2,
  double: 3,
  bytes: 4,
  uint16: 5,
  uint32: 6,
  map: 7,
  int32: 8,
  uint64: 9,
  uint128: 10,
  list: 11,
  boolean: 14,
  float: 15,
} as const;
const depthMax = 16;

/** Writes a database anew in MaxMind's layout. Raises `CONFIG_INVALID` when it is none, or has no countries. */
export function toMaxmindLayout(source: Buffer): CountryDatabase {
  const { nodeCount, ipVersion, builtAtMs, metadataStart } = readMetadata(source);
  const treeBytes = nodeCount * 6;
  const records = source.subarray(treeBytes + separatorBytes, metadataStart);
  const tree = Buffer.from(source.subarray(0, treeBytes));
  const written: Buffer[] = [];
  let writtenBytes = 0;
  const offsetOfCode = new Map<string, number>();
  const newValue = new Map<number, number>();
  for (let at = 0; at < treeBytes; at += 3) {
    const value = tree.readUIntBE(at, 3);
    // Below: another node. Equal: nothing is known of these addresses.
    if (value <= nodeCount) continue;
    let moved = newValue.get(value);
    if (moved === undefined) {
      const code = codeOf(read(records, value - nodeCount - separatorBytes).value);
      let offset = offsetOfCode.get(code);
      if (offset === undefined) {
        const record = countryRecord(code);
        offset = writtenBytes;
        offsetOfCode.set(code, offset);
        written.push(record);
        writtenBytes += record.length;
      }
      moved = nodeCount + separatorBytes + offset;
      newValue.set(value, moved);
    }
    tree.writeUIntBE(moved, at, 3);
  }
  const codes = [...offsetOfCode.keys()].sort();
  const countries = codes.filter((code) => countryOf(code) !== undefined);
  if (countries.length === 0) throw unusable("it names no countries");
  return {
    content: Buffer.concat([
      tree,
      Buffer.alloc(separatorBytes),
      ...written,
      metadataMark,
      metadata({ nodeCount, ipVersion, builtAtMs }),
    ]),
    builtAtMs,
    countries,
    unknownCodes: codes.filter((code) => countryOf(code) === undefined),
  };
}

function readMetadata(source: Buffer) {
  const mark = source.lastIndexOf(metadataMark);
  if (mark === -1 || source.length - mark > metadataBytesMax) throw unusable("it is no MaxMind DB file");
  const { value } = read(source.subarray(mark + metadataMark.length), 0);
  const { node_count, record_size, ip_version, build_epoch, binary_format_major_version } = value as Record<
    string,
    unknown
  >;
  if (
    binary_format_major_version !== 2 ||
    record_size !== 24 ||
    typeof node_count !== "number" ||
    typeof ip_version !== "number"
  ) {
    throw unusable("only version 2 with records of 24 bits is read");
  }
  if (node_count * 6 + separatorBytes > mark) throw unusable("it is cut off");
  return { nodeCount: node_count, ipVersion: ip_version, builtAtMs: Number(build_epoch) * 1_000, metadataStart: mark };
}

/** The flat layout's field, or MaxMind's own. */
function codeOf(record: unknown): string {
  const { country_code, country } = (record ?? {}) as { country_code?: unknown; country?: { iso_code?: unknown } };
  const code = country_code ?? country?.iso_code;
  return typeof code === "string" && /^[A-Z]{2}$/.test(code) ? code : "ZZ";
}

function countryRecord(code: string): Buffer {
  const country = countryOf(code);
  return map({
    ...(country === undefined ? {} : { continent: map({ code: text(country.continent) }) }),
    country: map({ iso_code: text(code) }),
  });
}

function metadata({
  nodeCount,
  ipVersion,
  builtAtMs,
}: {
  readonly nodeCount: number;
  readonly ipVersion: number;
  readonly builtAtMs: number;
}): Buffer {
  return map({
    node_count: uint(type.uint32, nodeCount),
    record_size: uint(type.uint16, 24),
    ip_version: uint(type.uint16, ipVersion),
    // By its end gdnsd tells what may be in it.
    database_type: text("GeoLite2-Country"),
    languages: list([text("en")]),
    binary_format_major_version: uint(type.uint16, 2),
    binary_format_minor_version: uint(type.uint16, 0),
    build_epoch: uint(type.uint64, Math.round(builtAtMs / 1_000)),
    description: map({ en: text("Countries, written anew by rungs") }),
  });
}

/** One field at an offset, and where the next one begins. Pointers are followed. */
function read(bytes: Buffer, at: number, depth = 0): { readonly value: unknown; readonly end: number } {
  if (depth > depthMax || at < 0 || at >= bytes.length) throw unusable("a record points nowhere");
  const control = bytes.readUInt8(at);
  if (control >> 5 === type.pointer) return readPointer(bytes, at, depth);
  const isExtended = control >> 5 === 0;
  const kind = isExtended ? 7 + bytes.readUInt8(at + 1) : control >> 5;
  const { size, start } = readSize(bytes, control & 0x1f, at + (isExtended ? 2 : 1));
  if (kind === type.map || kind === type.list) return readMany(bytes, { kind, size, start, depth });
  if (kind === type.boolean) return { value: size === 1, end: start };
  const end = start + size;
  if (end > bytes.length) throw unusable("a record is cut off");
  return { value: readPlain(bytes.subarray(start, end), kind), end };
}

function readPlain(bytes: Buffer, kind: number): unknown {
  if (kind === type.text) return bytes.toString("utf8");
  if (kind === type.double) return bytes.readDoubleBE();
  if (kind === type.float) return bytes.readFloatBE();
  if (kind === type.bytes || kind === type.uint128 || kind === type.int32) return undefined;
  return bytes.reduce((sum, byte) => sum * 256 + byte, 0);
}

function readMany(
  bytes: Buffer,
  { kind, size, start, depth }: { kind: number; size: number; start: number; depth: number },
) {
  let end = start;
  const next = () => {
    const found = read(bytes, end, depth + 1);
    end = found.end;
    return found.value;
  };
  if (kind === type.list) {
    const value: unknown[] = [];
    for (let index = 0; index < size; index++) value.push(next());
    return { value, end };
  }
  const value: Record<string, unknown> = Object.create(null);
  for (let index = 0; index < size; index++) {
    const key = String(next());
    value[key] = next();
  }
  return { value, end };
}

/** Sizes from 29 on stand in one to three further bytes. */
function readSize(bytes: Buffer, short: number, at: number): { readonly size: number; readonly start: number } {
  if (short < 29) return { size: short, start: at };
  const further = short - 28;
  const before = [29, 285, 65_821][further - 1] as number;
  return { size: before + bytes.readUIntBE(at, further), start: at + further };
}

function readPointer(bytes: Buffer, at: number, depth: number) {
  const control = bytes.readUInt8(at);
  const further = ((control >> 3) & 3) + 1;
  const low = bytes.readUIntBE(at + 1, further);
  const target =
    further === 4 ? low : (control & 7) * 256 ** further + low + ([0, 2_048, 526_336][further - 1] as number);
  return { value: read(bytes, target, depth + 1).value, end: at + 1 + further };
}

function field(kind: number, size: number, content: Buffer): Buffer {
  // Nothing written here is longer: no size needs more than one further byte.
  const short = Math.min(size, 29);
  const head = kind <= 7 ? [(kind << 5) | short] : [short, kind - 7];
  return Buffer.concat([Buffer.from(size < 29 ? head : [...head, size - 29]), content]);
}

function text(value: string): Buffer {
  const content = Buffer.from(value);
  return field(type.text, content.length, content);
}

function uint(kind: number, value: number): Buffer {
  const hex = value.toString(16);
  const content = value === 0 ? Buffer.alloc(0) : Buffer.from(hex.padStart(hex.length + (hex.length % 2), "0"), "hex");
  return field(kind, content.length, content);
}

function map(entries: Readonly<Record<string, Buffer>>): Buffer {
  const pairs = Object.entries(entries);
  return field(type.map, pairs.length, Buffer.concat(pairs.flatMap(([key, value]) => [text(key), value])));
}

function list(items: readonly Buffer[]): Buffer {
  return field(type.list, items.length, Buffer.concat(items));
}

function unusable(why: string): ConfigError {
  return new ConfigError(
    "CONFIG_INVALID",
    `The database of countries cannot be used: ${why}. Expected a MaxMind DB file with countries.`,
  );
}
