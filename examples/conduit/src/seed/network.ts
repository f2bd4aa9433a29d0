/**
 * A plausible social network, from a seed: the same seed and size always give the same people, ties and texts.
 *
 * - Who is popular follows Zipf's law: the r-th most popular person draws follows in proportion to 1 / r^0.8.
 * - How many one follows, writes and likes is log-normal: most little, a few very much.
 * - Reads (favourites and comments) go to authors by popularity and to recent articles more than to old ones.
 *
 * Everything about person `i` comes from a generator of its own, so any part can be made again without the others.
 */
import { type Random, seededRandom } from "rungs";
import { slugBase } from "../articles/slug.ts";
import { firstNames, lastNames, remarks, sentences, subjects, tags, titleForms } from "./words.ts";

export interface NetworkOptions {
  readonly people: number;
  readonly seed: number;
  /** The newest article's latest time, in milliseconds since the epoch; the oldest is two years before. */
  readonly untilMs: number;
  /** Ties given from outside, as pairs of person numbers; both follow each other. Default: generated. */
  readonly ties?: readonly (readonly [number, number])[];
}

export interface SeedPerson {
  readonly id: string;
  readonly username: string;
  readonly email: string;
  readonly bio: string;
  readonly createdAtMs: number;
}

export interface SeedArticle {
  readonly author: number;
  readonly id: string;
  readonly slug: string;
  readonly title: string;
  readonly description: string;
  readonly body: string;
  readonly tagList: readonly string[];
  readonly createdAtMs: number;
}

/** A read that left a mark: by person `reader` on the `article`-th article of person `author`. */
export interface SeedRead {
  readonly author: number;
  readonly article: number;
  readonly reader: number;
  readonly atMs: number;
  /** The comment; undefined for a favourite. */
  readonly comment: string | undefined;
}

export interface Network {
  readonly people: number;
  person(index: number): SeedPerson;
  /** Whom a person follows, as person numbers without repetition. */
  follows(index: number): readonly number[];
  /** How many articles a person wrote, without making them. */
  articleCount(index: number): number;
  articles(index: number): readonly SeedArticle[];
  /** Marks that a person left on others' articles. */
  reads(index: number): readonly SeedRead[];
}

const day = 24 * 60 * 60 * 1_000;
const historyMs = 2 * 365 * day;
const followsMax = 1_000;
const articlesMax = 200;

/** Makes the network; parts are made when asked for. */
export function createNetwork(options: NetworkOptions): Network {
  const { people, seed, untilMs } = options;
  const randomOf = (index: number, purpose: number) => seededRandom(mix(seed, index, purpose));
  const popular = popularity(people, seed);
  const tiesOf = options.ties === undefined ? undefined : neighbours(people, options.ties);
  const joinedMs = (index: number) => untilMs - historyMs - Math.floor(randomOf(index, 1).next() * 300 * day);
  const idOf = (index: number) => idAt(joinedMs(index), randomOf(index, 2));
  const articleCount = (index: number) => Math.min(articlesMax, Math.floor(logNormal(randomOf(index, 3), 0.9, 1.1)));

  function articles(index: number): SeedArticle[] {
    const random = randomOf(index, 4);
    return Array.from({ length: articleCount(index) }, (_, at) => {
      const createdAtMs = untilMs - Math.floor(random.next() * historyMs);
      const subject = pick(subjects, random);
      const title = sentenceCase(pick(titleForms, random).replace("{}", subject));
      return {
        author: index,
        id: idAt(createdAtMs, random),
        slug: `${slugBase(title)}-${seed.toString(36)}-${index.toString(36)}-${at.toString(36)}`,
        title,
        description: pick(sentences, random),
        body: bodyAbout(subject, random),
        tagList: [...new Set(Array.from({ length: 1 + Math.floor(random.next() * 4) }, () => zipfTag(random)))],
        createdAtMs,
      };
    });
  }

  return {
    people,
    articleCount,
    articles,
    person(index) {
      const random = randomOf(index, 5);
      const username = nameOf(index, seed);
      return {
        id: idOf(index),
        username,
        email: `${plain(username)}@example.com`,
        bio: random.next() < 0.7 ? `Writes about ${pick(subjects, random)} and ${pick(subjects, random)}.` : "",
        createdAtMs: joinedMs(index),
      };
    },
    follows(index) {
      if (tiesOf !== undefined) return tiesOf[index] ?? [];
      const random = randomOf(index, 6);
      const wanted = Math.min(followsMax, people - 1, Math.ceil(logNormal(random, 2.4, 1)));
      const chosen = new Set<number>();
      for (let tries = 0; chosen.size < wanted && tries < wanted * 4; tries++) {
        const target = popular(random);
        if (target !== index) chosen.add(target);
      }
      return [...chosen];
    },
    reads(index) {
      const random = randomOf(index, 7);
      const reads: SeedRead[] = [];
      const favourites = new Set<string>();
      for (let left = Math.min(500, Math.floor(logNormal(random, 2.2, 1))); left > 0; left--) {
        const author = popular(random);
        const count = articleCount(author);
        if (count === 0 || author === index) continue;
        const article = Math.floor(count * random.next() ** 2);
        const atMs = untilMs - Math.floor(random.next() * 60 * day);
        const isComment = random.next() < 0.3;
        const key = `${author}/${article}`;
        if (!isComment && favourites.has(key)) continue;
        if (!isComment) favourites.add(key);
        reads.push({ author, article, reader: index, atMs, comment: isComment ? pick(remarks, random) : undefined });
      }
      return reads;
    },
  };
}

/** Reads an edge list: two person numbers a line, from 0; other lines are passed over. Gives the ties and the people. */
export function parseEdges(text: string): { ties: [number, number][]; people: number } {
  const ties: [number, number][] = [];
  let people = 0;
  for (const line of text.split("\n")) {
    const match = /^\s*(\d{1,9})[\s,]+(\d{1,9})\s*$/.exec(line);
    if (match === null) continue;
    const tie: [number, number] = [Number(match[1]), Number(match[2])];
    ties.push(tie);
    people = Math.max(people, tie[0] + 1, tie[1] + 1);
  }
  return { ties, people };
}

/** Draws person numbers by Zipf's law over a shuffled order, by inversion of the cumulated weights. */
function popularity(people: number, seed: number): (random: Random) => number {
  const random = seededRandom(mix(seed, 0, 9));
  const order = Array.from({ length: people }, (_, index) => index);
  for (let at = people - 1; at > 0; at--) {
    const other = Math.floor(random.next() * (at + 1));
    [order[at], order[other]] = [order[other] as number, order[at] as number];
  }
  const cumulated = new Float64Array(people);
  let sum = 0;
  for (let rank = 0; rank < people; rank++) cumulated[rank] = sum += (rank + 1) ** -0.8;
  return (source) => {
    const wanted = source.next() * sum;
    let low = 0;
    let high = people - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((cumulated[middle] as number) < wanted) low = middle + 1;
      else high = middle;
    }
    return order[low] as number;
  };
}

function neighbours(people: number, ties: readonly (readonly [number, number])[]): number[][] {
  const sets = Array.from({ length: people }, () => new Set<number>());
  for (const [a, b] of ties) {
    if (a === b) continue;
    sets[a]?.add(b);
    sets[b]?.add(a);
  }
  return sets.map((set) => [...set].sort((a, b) => a - b));
}

/**
 * A name that nobody else of any seed has: pairs of first and last names in an order without repetition, numbered from
 * the second time round, and marked by the seed when it is not the usual one.
 */
function nameOf(index: number, seed: number): string {
  const pairs = firstNames.length * lastNames.length;
  // 1,009 is prime and divides neither list's length, so stepping by it visits every pair once.
  const pair = (index * 1_009) % pairs;
  const first = firstNames[pair % firstNames.length] as string;
  const last = lastNames[Math.floor(pair / firstNames.length)] as string;
  const round = Math.floor(index / pairs);
  return `${first}.${last}${round === 0 ? "" : round + 1}${seed === 1 ? "" : `.s${seed.toString(36)}`}`;
}

function bodyAbout(subject: string, random: Random): string {
  const paragraph = () =>
    Array.from({ length: 2 + Math.floor(random.next() * 4) }, () => pick(sentences, random)).join(" ");
  const middle =
    random.next() < 0.5 ? `- ${pick(sentences, random)}\n- ${pick(sentences, random)}` : `> ${pick(sentences, random)}`;
  return `${paragraph()}\n\n## On ${subject}\n\n${paragraph()}\n\n${middle}\n\n${paragraph()}`;
}

/** exp of a normal variable (Box-Muller). */
function logNormal(random: Random, mean: number, deviation: number): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random.next())) * Math.cos(2 * Math.PI * random.next());
  return Math.exp(mean + deviation * normal);
}

function zipfTag(random: Random): string {
  return tags[Math.min(tags.length - 1, Math.floor(tags.length ** random.next()) - 1)] as string;
}

function pick<V>(list: readonly V[], random: Random): V {
  return list[Math.floor(random.next() * list.length)] as V;
}

/** An id whose time part is the row's own time, so that ids sort as if the rows had been made then. */
function idAt(ms: number, random: Random): string {
  const hex = Buffer.from(random.bytes(10)).toString("hex");
  const time = Math.floor(ms).toString(16).padStart(12, "0");
  const variant = ((Number.parseInt(hex.slice(3, 4), 16) & 0x3) | 0x8).toString(16);
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hex.slice(0, 3)}-${variant}${hex.slice(4, 7)}-${hex.slice(7, 19)}`;
}

/** One 32-bit seed from three numbers (splitmix-style finaliser). */
function mix(seed: number, index: number, purpose: number): number {
  let x = (Math.imul(seed | 0, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b) ^ Math.imul(purpose, 0xc2b2ae35)) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}

function sentenceCase(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** ASCII letters, digits and dots only. */
function plain(name: string): string {
  return name
    .normalize("NFKD")
    .replace(/[^A-Za-z0-9.]/g, "")
    .toLowerCase();
}
