/** Where regions are by the names that they usually have, for zones that do not say it. */
import type { Point } from "rungs/dns";

/** Beginnings of names; the longest that fits counts. Points are near large data centres. */
const places: Readonly<Record<string, Point>> = {
  eu: { latitude: 50, longitude: 9 },
  "eu-west": { latitude: 53, longitude: -6 },
  "eu-north": { latitude: 59, longitude: 18 },
  "eu-south": { latitude: 45, longitude: 9 },
  uk: { latitude: 52, longitude: 0 },
  us: { latitude: 39, longitude: -77 },
  "us-east": { latitude: 39, longitude: -77 },
  "us-central": { latitude: 41, longitude: -93 },
  "us-west": { latitude: 46, longitude: -120 },
  na: { latitude: 39, longitude: -77 },
  ca: { latitude: 46, longitude: -74 },
  sa: { latitude: -24, longitude: -47 },
  ap: { latitude: 1, longitude: 104 },
  asia: { latitude: 1, longitude: 104 },
  "ap-northeast": { latitude: 36, longitude: 140 },
  "ap-south": { latitude: 19, longitude: 73 },
  "ap-southeast": { latitude: 1, longitude: 104 },
  in: { latitude: 19, longitude: 73 },
  jp: { latitude: 36, longitude: 140 },
  au: { latitude: -34, longitude: 151 },
  oc: { latitude: -34, longitude: 151 },
  me: { latitude: 25, longitude: 55 },
  af: { latitude: -34, longitude: 18 },
};

/** About where a region of this name is, such as "eu" or "us-east-1"; undefined for other names. */
export function placeOfRegion(name: string): Point | undefined {
  const fits = Object.keys(places).filter((start) => name === start || name.startsWith(`${start}-`));
  return places[fits.sort((one, other) => other.length - one.length)[0] ?? ""];
}
