/**
 * Where countries lie: continent and one point each, about where most of their people live.
 *
 * Codes are those of ISO 3166-1; continents those of geographic databases (two letters, "NA" with Central America and the Caribbean).
 * Points are in whole degrees: they only have to say which of some regions, mostly oceans apart, is the nearest. Whoever knows
 * better says so in `routing.countries`.
 */

/** The seven continents. */
export const continents = ["AF", "AN", "AS", "EU", "NA", "OC", "SA"] as const;

/** A continent's code, e.g. "EU". */
export type Continent = (typeof continents)[number];

/** A point on the Earth, in degrees; north and east are positive. */
export interface Point {
  readonly latitude: number;
  readonly longitude: number;
}

/** A country as the policy sees it. */
export interface Country extends Point {
  /** Two letters of ISO 3166-1, e.g. "AT". */
  readonly code: string;
  readonly continent: Continent;
}

/** Code, latitude, longitude. */
const table: Readonly<Record<Continent, string>> = {
  AF: `AO -9 14, BF 12 -2, BI -3 30, BJ 7 2, BW -24 26, CD -4 18, CF 5 18, CG -4 15, CI 6 -4, CM 4 11, CV 15 -23, DJ 12 43, DZ 36 4,
    EG 30 31, EH 27 -13, ER 15 39, ET 9 39, GA 0 10, GH 6 0, GM 13 -16, GN 10 -13, GQ 3 9, GW 12 -15, KE -1 37, KM -12 43, LR 6 -11,
    LS -29 28, LY 32 14, MA 33 -7, MG -19 47, ML 12 -8, MR 18 -16, MU -20 57, MW -14 34, MZ -22 34, NA -22 17, NE 13 4, NG 8 6,
    RE -21 55, RW -2 30, SC -5 55, SD 15 32, SH -16 -6, SL 8 -13, SN 14 -17, SO 3 45, SS 5 31, ST 0 7, SZ -26 31, TD 12 16, TG 7 1,
    TN 36 10, TZ -6 37, UG 1 32, YT -13 45, ZA -28 28, ZM -15 28, ZW -18 31`,
  AN: `AQ -75 0, BV -54 3, GS -54 -37, HM -53 73, TF -49 70`,
  AS: `AE 25 55, AF 34 69, AM 40 44, AZ 40 49, BD 24 90, BH 26 50, BN 5 115, BT 27 90, CC -12 97, CN 32 114, CX -10 106, GE 42 44,
    HK 22 114, ID -6 108, IL 32 35, IN 22 78, IO -7 72, IQ 33 44, IR 35 52, JO 32 36, JP 36 138, KG 42 74, KH 12 105, KP 39 126,
    KR 37 127, KW 29 48, KZ 45 72, LA 18 103, LB 34 35, LK 7 80, MM 18 96, MN 47 107, MO 22 113, MV 4 73, MY 3 102, NP 28 85, OM 23 58,
    PH 14 121, PK 31 72, PS 32 35, QA 25 51, SA 24 45, SG 1 104, SY 34 37, TH 14 101, TJ 38 69, TL -9 126, TM 38 58, TR 40 32, TW 25 121,
    UZ 41 68, VN 16 107, YE 15 45`,
  EU: `AD 42 2, AL 41 20, AT 48 15, AX 60 20, BA 44 18, BE 51 4, BG 43 24, BY 54 28, CH 47 8, CY 35 33, CZ 50 15, DE 51 9, DK 56 11,
    EE 59 25, ES 40 -3, FI 61 25, FO 62 -7, FR 48 3, GB 52 -1, GG 49 -3, GI 36 -5, GR 38 23, HR 45 16, HU 47 19, IE 53 -7, IM 54 -4,
    IS 64 -21, IT 43 12, JE 49 -2, LI 47 10, LT 55 25, LU 50 6, LV 57 24, MC 44 7, MD 47 29, ME 42 19, MK 42 22, MT 36 14, NL 52 5,
    NO 60 10, PL 52 19, PT 39 -9, RO 45 26, RS 44 21, RU 55 40, SE 59 16, SI 46 15, SJ 78 16, SK 48 18, SM 44 12, UA 49 31, VA 42 12, XK 43 21`,
  NA: `AG 17 -62, AI 18 -63, AW 12 -70, BB 13 -60, BL 18 -63, BM 32 -65, BQ 12 -68, BS 25 -77, BZ 17 -88, CA 45 -77, CR 10 -84, CU 22 -80,
    CW 12 -69, DM 15 -61, DO 19 -70, GD 12 -62, GL 65 -50, GP 16 -61, GT 15 -91, HN 15 -87, HT 19 -72, JM 18 -77, KN 17 -63, KY 19 -81,
    LC 14 -61, MF 18 -63, MQ 15 -61, MS 17 -62, MX 20 -100, NI 12 -86, PA 9 -80, PM 47 -56, PR 18 -66, SV 14 -89, SX 18 -63, TC 22 -72,
    TT 10 -61, US 39 -95, VC 13 -61, VG 18 -65, VI 18 -65`,
  OC: `AS -14 -171, AU -34 147, CK -21 -160, FJ -18 178, FM 7 158, GU 13 145, KI 1 173, MH 7 171, MP 15 146, NC -22 166, NF -29 168, NR -1 167,
    NU -19 -170, NZ -38 175, PF -18 -149, PG -6 146, PN -25 -130, PW 7 134, SB -9 160, TK -9 -172, TO -21 -175, TV -9 179, UM 19 167, VU -18 168,
    WF -13 -176, WS -14 -172`,
  SA: `AR -34 -60, BO -17 -66, BR -20 -46, CL -34 -71, CO 5 -75, EC -1 -79, FK -52 -58, GF 5 -53, GY 7 -58, PE -12 -77, PY -25 -57, SR 6 -55,
    UY -34 -56, VE 10 -67`,
};

const byCode: ReadonlyMap<string, Country> = new Map(
  continents.flatMap((continent) =>
    table[continent].split(",").map((row): [string, Country] => {
      const [code = "", latitude, longitude] = row.trim().split(" ");
      return [code, { code, continent, latitude: Number(latitude), longitude: Number(longitude) }];
    }),
  ),
);

/** All countries, by continent and code. */
export const countries: readonly Country[] = [...byCode.values()];

/** The country of this code; undefined when there is none, as for codes that databases use for "unknown". */
export function countryOf(code: string): Country | undefined {
  return byCode.get(code);
}

/** Mean radius of the Earth (IUGG), in km. */
const earthRadiusKm = 6_371;

/** Distance over the ground in km, by the haversine formula on a sphere: half a percent off at most. */
export function distanceKm(from: Point, to: Point): number {
  const radians = (degrees: number) => (degrees * Math.PI) / 180;
  const half = (degrees: number) => Math.sin(radians(degrees) / 2) ** 2;
  const across = Math.cos(radians(from.latitude)) * Math.cos(radians(to.latitude));
  const haversine = half(to.latitude - from.latitude) + across * half(to.longitude - from.longitude);
  return 2 * earthRadiusKm * Math.asin(Math.sqrt(Math.min(1, haversine)));
}
