/** People of three kinds who write and read at random through random processes, and what they saw that they must not. */
import { randomUUID } from "node:crypto";
import { request as httpRequest } from "node:http";
import { seededRandom } from "../../../src/kernel/random.ts";

/** How a client carries what it has seen: as a browser, in the header, or not at all. */
export type ClientKind = "cookie" | "header" | "nothing";

/** What was seen. */
export interface SessionHistory {
  readonly reads: number;
  readonly writes: number;
  readonly failures: number;
  /** The first of them, for when a test fails. */
  readonly failed: readonly string[];
  /** Reads that do not show what the same person was told to have been written. */
  readonly staleOwnReads: readonly string[];
  /** Reads that show less than an earlier one of the same person. */
  readonly backwardReads: readonly string[];
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly cookies: readonly string[];
  readonly note: string | undefined;
}

/** Runs for `ms`, on a busy machine up to four times as long for `readsMin`, some people of each kind. Seeded: the same requests in each person's order. */
export async function checkSessions(options: {
  readonly addresses: readonly string[];
  readonly seed: number;
  readonly people: number;
  readonly ms: number;
  readonly readsMin: number;
  /** Share of requests about what is cached: each write of it raises what all reads have to see. */
  readonly taggedShare: number;
  /** Share of requests about what the session itself keeps; default 0. */
  readonly keptShare?: number;
}): Promise<SessionHistory> {
  const { addresses, seed, people, ms, readsMin, taggedShare, keptShare = 0 } = options;
  const startedAt = performance.now();
  const isOver = () => {
    const tookMs = performance.now() - startedAt;
    return tookMs > 4 * ms || (tookMs > ms && counts.reads >= readsMin);
  };
  const counts = { reads: 0, writes: 0, failures: 0 };
  const failed: string[] = [];
  const fail = (what: string, { status, body }: Answer) => {
    counts.failures++;
    if (failed.length < 10) failed.push(`${what}: ${status} ${body.slice(0, 300)}`);
  };
  const staleOwnReads: string[] = [];
  const backwardReads: string[] = [];
  const kinds = ["cookie", "header", "nothing"] as const;

  async function person(index: number): Promise<void> {
    const random = seededRandom(seed * 1_000 + index);
    const kind = kinds[index % kinds.length] as ClientKind;
    const client = new Client(kind, () => addresses[Math.floor(random.next() * addresses.length)] as string);
    while (!(await client.signIn())) if (isOver()) return;
    /** By what is read: the newest that this person was told to have been written, and that it has read. */
    const written = { own: 0, common: 0, tagged: 0, kept: 0 };
    const seen = { own: 0, common: 0, tagged: 0, kept: 0 };
    while (!isOver()) {
      const isKept = keptShare > 0 && random.next() < keptShare;
      const shared = random.next() < taggedShare ? "tagged" : random.next() < 0.5 ? "own" : "common";
      const what = isKept ? "kept" : shared;
      const isWrite = random.next() < 0.2;
      const isCached = !isWrite && what === "tagged" && random.next() < 0.5;
      if (isWrite) {
        const answer = await client.ask("POST", `/${what}`);
        const { body } = answer;
        if (answer.status !== 200) {
          fail(`POST /${what}`, answer);
          continue;
        }
        counts.writes++;
        written[what] = Math.max(written[what], Number(body));
        seen[what] = Math.max(seen[what], Number(body));
        continue;
      }
      const path = isCached ? "/cached" : `/${what}`;
      // One at a time as a page is loaded, or several at once as its scripts ask.
      const atOnce = random.next() < 0.15 ? 3 : 1;
      const mode = atOnce === 1 ? "navigate" : "cors";
      const answers = await Promise.all(Array.from({ length: atOnce }, () => client.ask("GET", path, { mode })));
      const before = seen[what];
      for (const answer of answers) {
        if (answer.status !== 200) {
          fail(`GET ${path}`, answer);
          continue;
        }
        counts.reads++;
        const value = Number(answer.body);
        const line = `${kind} ${index} read ${path} = ${value}, wrote ${written[what]}, saw ${before}, ${mode}`;
        if (value < written[what]) staleOwnReads.push(line);
        // What others have written may reach a cache later than a database: its own bound is another test's.
        if (isCached) continue;
        if (value < before) backwardReads.push(line);
        seen[what] = Math.max(seen[what], value);
      }
    }
  }

  await Promise.all(Array.from({ length: people }, (_, index) => person(index)));
  return { ...counts, failed, staleOwnReads, backwardReads };
}

class Client {
  private readonly kind: ClientKind;
  private readonly pick: () => string;
  private readonly cookies = new Map<string, { readonly value: string; readonly endsAt: number }>();
  private token: string | undefined;
  private notes: string[] = [];

  constructor(kind: ClientKind, pick: () => string) {
    this.kind = kind;
    this.pick = pick;
  }

  async signIn(): Promise<boolean> {
    const path = this.kind === "cookie" ? "/cookie" : "/token";
    const { status, body } = await this.ask("POST", path, { body: JSON.stringify({ user: randomUUID() }) });
    if (status === 200 && this.kind !== "cookie") this.token = body;
    return status === 200;
  }

  async ask(method: string, path: string, { body = "{}", mode = "navigate" } = {}): Promise<Answer> {
    const address = this.pick();
    const sent = this.notes;
    for (const [name, { endsAt }] of this.cookies) if (endsAt <= performance.now()) this.cookies.delete(name);
    const answer = await send(address + path, {
      method,
      body: method === "GET" ? undefined : body,
      headers: {
        origin: address,
        "sec-fetch-site": "same-origin",
        ...(method === "GET" ? { "sec-fetch-mode": mode } : { "content-type": "application/json" }),
        ...(this.cookies.size === 0
          ? {}
          : { cookie: [...this.cookies].map(([name, { value }]) => `${name}=${value}`).join("; ") }),
        ...(this.token === undefined ? {} : { authorization: `Bearer ${this.token}` }),
        ...(this.notes.length === 0 ? {} : { "rungs-position": this.notes.join(", ") }),
      },
    });
    for (const cookie of answer.cookies) {
      const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
      const seconds = Number(/; Max-Age=(\d+)/.exec(cookie)?.[1] ?? Number.POSITIVE_INFINITY);
      this.cookies.set(name, { value, endsAt: performance.now() + seconds * 1_000 });
    }
    if (this.kind === "header" && answer.note !== undefined) {
      // Of requests at once all answers' notes are kept, in place of those that were sent with them.
      this.notes = this.notes === sent ? [answer.note] : [...this.notes, answer.note];
    }
    return answer;
  }
}

/** A connection each: which process answers is the sender's choice. */
function send(
  url: string,
  { method, headers, body }: { method: string; headers: Record<string, string>; body: string | undefined },
): Promise<Answer> {
  return new Promise((resolve) => {
    const failed = () => resolve({ status: 0, body: "", cookies: [], note: undefined });
    const outgoing = httpRequest(url, { method, headers, timeout: 20_000 }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.on("error", failed).on("end", () => {
        const note = response.headers["rungs-position"];
        resolve({
          status: response.statusCode ?? 0,
          body: text,
          cookies: response.headers["set-cookie"] ?? [],
          note: note === undefined ? undefined : String(note),
        });
      });
    });
    outgoing.on("timeout", () => outgoing.destroy()).on("error", failed);
    outgoing.end(body);
  });
}
