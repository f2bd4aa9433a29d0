/** The database of countries, written anew for gdnsd, by another library than ours. */
import { type CountryResponse, Reader } from "maxmind";
import { describe, expect, it } from "vitest";
import { toMaxmindLayout } from "../src/stack/dns/country-database.ts";
import { countryData } from "./support/countries.ts";

const { content: source, countryAt, randomAddress } = countryData();

describe("the database of countries", () => {
  it("says after its change what it said before", () => {
    const changed = new Reader<CountryResponse>(toMaxmindLayout(source).content);
    for (let count = 0; count < 4_000; count++) {
      const address = randomAddress(count % 2 === 0 ? 4 : 6);
      expect(changed.get(address)?.country?.iso_code).toBe(countryAt(address));
    }
    expect(changed.get("131.130.70.8")).toEqual({ continent: { code: "EU" }, country: { iso_code: "AT" } });
  });

  it("may be in MaxMind's layout already", () => {
    const { content } = toMaxmindLayout(source);
    expect(toMaxmindLayout(content).content.equals(content)).toBe(true);
  });

  it("is refused when it is none, is cut off, or points nowhere", () => {
    const mark = source.lastIndexOf("\xab\xcd\xefMaxMind.com", undefined, "latin1");
    const wild = Buffer.from(source);
    wild.writeUIntBE(0xffffff, 0, 3);
    for (const bytes of [
      Buffer.from("x"),
      source.subarray(0, 1_000_000),
      Buffer.concat([source.subarray(0, 1_000), source.subarray(mark)]),
      wild,
    ]) {
      expect(() => toMaxmindLayout(bytes)).toThrow(/The database of countries cannot be used/);
    }
  });
});
