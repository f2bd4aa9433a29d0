/**
 * People, web processes and Redis servers of three regions in simulated time, around the real policies of reading sessions near by:
 * `session-reads.ts`, `near-session-store.ts` and `copy-age.ts`.
 *
 * Copies lag and stand still, go back to an old file, freeze and come back; a master dies and a copy that may have missed something
 * takes its place. Browsers send requests at once whose answers overtake each other.
 */
import { randomUUID } from "node:crypto";
import { readUnits } from "../../src/app/reads/read-units.ts";
import type { Clock } from "../../src/kernel/clock.ts";
import { UnavailableError } from "../../src/kernel/errors.ts";
import type { Random } from "../../src/kernel/random.ts";
import { type CopyAge, openCopyAge } from "../../src/session/copy-age.ts";
import { type NearSessionStore, nearSessionStore } from "../../src/session/near-session-store.ts";
import { latestSeen } from "../../src/session/seen.ts";
import { type RequestFacts, type SessionReads, sessionReads } from "../../src/session/session-reads.ts";
import type { SessionRecord, SessionStore } from "../../src/session/session-store.ts";
import { createSessions, hashToken, type Sessions } from "../../src/session/sessions.ts";
import { seenSigner } from "../../src/session/signed-seen.ts";

/** What a planted fault takes out. */
export type Fault =
  | "none"
  | "no revisions"
  | "no mark"
  | "no age"
  | "no eras"
  | "a copy signs out"
  | "writes prove too";

export interface SimulationResult {
  readonly requests: number;
  readonly acknowledged: number;
  readonly near: number;
  readonly failOvers: number;
  readonly violations: readonly string[];
}

const runMs = 40_000;
const staleMsMax = 2_000;
const regions = ["eu", "us", "ap"] as const;
type RegionName = (typeof regions)[number];

/** Events in the order of their times; those of one time in the order they were made. */
class Timeline implements Clock {
  private nowMs = 0;
  private made = 0;
  private readonly events: { readonly at: number; readonly order: number; readonly run: () => void }[] = [];

  now = () => this.nowMs;
  monotonic = () => this.nowMs;

  at(ms: number, run: () => void): void {
    this.events.push({ at: ms, order: this.made++, run });
  }

  sleep = (ms: number): Promise<void> => new Promise((resolve) => this.at(this.nowMs + ms, resolve));

  every = (ms: number, work: () => void): (() => void) => {
    let isOver = false;
    const run = () => {
      if (isOver) return;
      work();
      this.at(this.nowMs + ms, run);
    };
    this.at(this.nowMs + ms, run);
    return () => {
      isOver = true;
    };
  };

  async runUntil(endMs: number): Promise<void> {
    for (;;) {
      // Everything that follows from the last event without waiting happens first.
      await new Promise((resolve) => setImmediate(resolve));
      let next = 0;
      for (let index = 1; index < this.events.length; index++) {
        const [a, b] = [this.events[index], this.events[next]] as const;
        if (a !== undefined && b !== undefined && (a.at < b.at || (a.at === b.at && a.order < b.order))) next = index;
      }
      const [event] = this.events.splice(next, 1);
      if (event === undefined || event.at > endMs) return;
      this.nowMs = Math.max(this.nowMs, event.at);
      event.run();
    }
  }
}

/** A change as it is copied: its result. */
type Effect = (server: Server) => void;

class Server {
  sessions = new Map<string, SessionRecord>();
  beats = new Map<string, number>();
  isUp = true;
  stalledUntil = 0;
  frozenUntil = 0;
  /** Whom it follows, in which attempt: what an earlier one still brings is dropped. */
  following = 0;
  /** Whether it has all that its master had when it began to follow. */
  isInStep = true;
  /** What is on its way here. */
  readonly coming: { readonly at: number; readonly following: number; readonly effect: Effect }[] = [];
  old: { readonly sessions: Map<string, SessionRecord>; readonly beats: Map<string, number> } | undefined;
  readonly region: RegionName;
  /** How wrong its clock is. */
  readonly skewMs: number;

  constructor(region: RegionName, skewMs: number) {
    this.region = region;
    this.skewMs = skewMs;
  }

  keepFile(): void {
    this.old = { sessions: new Map(this.sessions), beats: new Map(this.beats) };
  }

  become(other: Pick<Server, "sessions" | "beats">): void {
    this.sessions = new Map(other.sessions);
    this.beats = new Map(other.beats);
  }
}

const unavailable = () => new UnavailableError("REDIS_UNREACHABLE", "planted", { canRetry: true });

/** One connection of a process, made anew when its server is lost. */
class Link {
  private generation = 0;
  private isOpen = true;
  readonly listeners: (() => void)[] = [];
  private readonly world: World;
  private readonly from: RegionName;
  server: Server;

  constructor(world: World, from: RegionName, server: Server) {
    this.world = world;
    this.from = from;
    this.server = server;
  }

  async ask<R>(work: (server: Server) => R): Promise<R> {
    const { generation, world, server } = this;
    const oneWayMs = () => (server.region === this.from ? 1 : 40) * (0.5 + world.random.next());
    if (!this.isOpen) throw unavailable();
    await world.time.sleep(oneWayMs());
    if (world.time.now() < server.frozenUntil) {
      await world.time.sleep(300);
      throw unavailable();
    }
    if (generation !== this.generation || !server.isUp) throw unavailable();
    const result = work(server);
    await world.time.sleep(oneWayMs());
    if (generation !== this.generation) throw unavailable();
    return result;
  }

  reconnect(server: Server, first: () => void = () => {}): void {
    const generation = ++this.generation;
    this.isOpen = false;
    this.world.time.at(this.world.time.now() + 400 * this.world.random.next(), () => {
      if (generation !== this.generation) return;
      this.server = server;
      first();
      for (const listener of this.listeners) listener();
      this.isOpen = true;
    });
  }
}

/** Everything, and what happens to it. */
class World {
  readonly time = new Timeline();
  readonly servers: Record<RegionName, Server>;
  readonly processes: Process[] = [];
  readonly people: Person[] = [];
  readonly revoked = new Set<string>();
  readonly violations: string[] = [];
  readonly counts = { requests: 0, acknowledged: 0, failOvers: 0 };
  readonly random: Random;
  readonly fault: Fault;
  master: Server;
  /** One more with each fail-over: what was acknowledged before may be lost. */
  era = 0;

  constructor(random: Random, fault: Fault) {
    this.random = random;
    this.fault = fault;
    const server = (region: RegionName) => new Server(region, 400 * (random.next() - 0.5));
    this.servers = { eu: server("eu"), us: server("us"), ap: server("ap") };
    this.master = this.servers.eu;
  }

  commit(effect: Effect): void {
    effect(this.master);
    for (const server of Object.values(this.servers)) {
      if (server === this.master || !server.isUp || !server.isInStep) continue;
      const lagMs = 20 + 40 * this.random.next();
      server.coming.push({ at: this.time.now() + lagMs, following: server.following, effect });
      this.deliver(server, this.time.now() + lagMs);
    }
  }

  /** In their order, which standing still does not change. */
  private deliver(server: Server, at: number): void {
    this.time.at(at, () => {
      if (this.time.now() < server.stalledUntil) return this.deliver(server, server.stalledUntil);
      while ((server.coming[0]?.at ?? Number.POSITIVE_INFINITY) <= this.time.now()) {
        const { following, effect } = server.coming.shift() ?? { following: -1, effect: () => {} };
        if (server.following === following) effect(server);
      }
    });
  }

  /** Copies everything from the master, in a while; until then it shows what it has. */
  follow(server: Server): void {
    const following = ++server.following;
    server.isInStep = false;
    this.time.at(this.time.now() + 100 + 2_000 * this.random.next(), () => {
      if (server.following !== following || server === this.master || !this.master.isUp) return;
      server.become(this.master);
      server.isInStep = true;
    });
  }

  failOver(): void {
    const dead = this.master;
    dead.isUp = false;
    dead.following++;
    const others = Object.values(this.servers).filter((server) => server !== dead && server.isUp);
    const next = others[Math.floor(this.random.next() * others.length)] as Server;
    this.time.at(this.time.now() + 600 + 900 * this.random.next(), () => {
      next.following++;
      this.master = next;
      this.era++;
      this.counts.failOvers++;
      for (const person of this.people) person.lose(next);
      for (const server of others) if (server !== next) this.follow(server);
      for (const process of this.processes) process.meetMaster();
      this.time.at(this.time.now() + 3_000, () => {
        dead.isUp = true;
        if (this.random.next() < 0.5 && dead.old !== undefined) dead.become(dead.old);
        this.follow(dead);
        for (const process of this.processes) if (process.copy.server === dead) process.copy.reconnect(dead);
      });
    });
  }

  /** What happens to servers, at random. */
  disturb(): void {
    const copies = Object.values(this.servers).filter((server) => server !== this.master && server.isUp);
    const server = copies[Math.floor(this.random.next() * copies.length)];
    if (server === undefined) return;
    const what = this.random.next();
    const now = this.time.now();
    if (what < 0.7) server.stalledUntil = now + (this.random.next() < 0.8 ? 1_500 : 6_000) * this.random.next();
    else if (what < 0.75) server.frozenUntil = now + 2_000 * this.random.next();
    else if (what < 0.85 && server.old !== undefined) {
      server.become(server.old);
      this.follow(server);
      for (const process of this.processes) if (process.copy.server === server) process.copy.reconnect(server);
    } else server.keepFile();
  }
}

/** One web process. */
class Process {
  readonly region: RegionName;
  readonly copy: Link;
  readonly reads: SessionReads;
  readonly near: NearSessionStore;
  readonly sessions: Sessions;
  /** The last fail-over that it knows of. */
  era = 0;
  private readonly world: World;
  private readonly main: Link;

  constructor(world: World, region: RegionName, age: CopyAge, links: { readonly main: Link; readonly copy: Link }) {
    this.world = world;
    this.region = region;
    this.main = links.main;
    this.copy = links.copy;
    const { fault, time } = world;
    const copyOf = async (tokenHash: Buffer) => {
      const record = await this.copy.ask((server) => server.sessions.get(tokenHash.toString("hex")));
      return record !== undefined && fault === "no revisions" ? { ...record, revision: 1e9 } : record;
    };
    this.near = nearSessionStore({
      ...{ store: storeOf(world, this.main), copy: { read: copyOf }, clock: time, staleMsMax },
      age: fault === "no age" ? { era: 0, ageMs: () => 0, doubt: () => {} } : age,
    });
    const read: SessionStore["read"] = async (tokenHash, options = {}) => {
      if (
        fault === "a copy signs out" &&
        options.leastRevision !== undefined &&
        (await copyOf(tokenHash)) === undefined
      )
        return undefined;
      return this.near.read(tokenHash, options);
    };
    this.reads = sessionReads({
      ...{ units: readUnits(), signer: seenSigner(Buffer.alloc(32, 5)), hasRevisions: true },
    });
    this.sessions = createSessions({
      ...{ store: { ...this.near, read }, seen: this.reads, clock: time, random: world.random },
    });
  }

  meetMaster(): void {
    const { world } = this;
    this.main.reconnect(world.master, () => {
      this.era = world.era;
      for (const hash of world.revoked) world.commit((server) => server.sessions.delete(hash));
    });
  }

  async serve(facts: RequestFacts, write: { readonly field: string; readonly value: number } | undefined) {
    const request = this.reads.begin(facts);
    return request.unit.run(async () => {
      const startedAt = this.world.time.now();
      const { era } = this;
      try {
        const token = facts.token ?? "";
        const session = await this.sessions.load(token);
        const data = session?.data ?? {};
        const isWritten =
          write !== undefined &&
          session !== undefined &&
          (await this.sessions.update(token, { [write.field]: write.value })) !== undefined;
        const note = await request.settle(this.sessions, { canCarry: true });
        return { startedAt, era, isLive: session !== undefined, data, isWritten, note, isToMark: request.isToMark };
      } finally {
        request.end();
      }
    });
  }
}

async function startProcess(world: World, region: RegionName): Promise<Process> {
  const links = { main: new Link(world, region, world.master), copy: new Link(world, region, world.servers[region]) };
  const id = randomUUID();
  const age = await openCopyAge({
    ...{ clock: world.time, every: world.time.every },
    line: {
      write: (beat) =>
        links.main.ask((server) => {
          if (server !== world.master) throw unavailable();
          world.commit((each) => each.beats.set(id, beat));
        }),
      read: () => links.copy.ask((server) => server.beats.get(id) ?? 0),
      async onConnect(listener) {
        listener();
        if (world.fault === "no eras") return;
        links.main.listeners.push(listener);
        links.copy.listeners.push(listener);
      },
    },
  });
  return new Process(world, region, age, links);
}

/** Sessions where they are changed. */
function storeOf(world: World, link: Link): SessionStore {
  const keyOf = (tokenHash: Buffer) => tokenHash.toString("hex");
  const ask = <R>(work: (sessions: ReadonlyMap<string, SessionRecord>) => R) =>
    link.ask((server) => {
      if (server !== world.master) throw unavailable();
      return work(server.sessions);
    });
  const set = (record: SessionRecord) => {
    const key = keyOf(record.tokenHash);
    world.commit((server) => server.sessions.set(key, record));
  };
  const change = (tokenHash: Buffer, changed: (record: SessionRecord) => Partial<SessionRecord>) =>
    ask((sessions) => {
      const record = sessions.get(keyOf(tokenHash));
      if (record === undefined) return undefined;
      const revision = Math.max(record.revision + 1, Math.round(1_000 + world.time.now() + world.master.skewMs));
      const next = { ...record, ...changed(record), revision };
      set(next);
      return next;
    });
  const revoke = async (hashes: (sessions: ReadonlyMap<string, SessionRecord>) => string[]) => {
    const noted = await ask(hashes);
    for (const hash of noted) world.revoked.add(hash);
    return ask(() => {
      for (const hash of noted) world.commit((server) => server.sessions.delete(hash));
      return noted.length;
    });
  };
  return {
    capabilities: { expiresByItself: true },
    create: (record) => ask(() => set(record)),
    read: (tokenHash) => ask((sessions) => sessions.get(keyOf(tokenHash))),
    touch: async (tokenHash, lastSeenAt) => void (await change(tokenHash, () => ({ lastSeenAt }))),
    update: (tokenHash, patch) => change(tokenHash, ({ data }) => ({ data: { ...data, ...patch } })),
    noteWrite: async (tokenHash, wrote) => (await change(tokenHash, () => ({ wrote })))?.revision,
    noteSeen: async (tokenHash, seen) =>
      (await change(tokenHash, (record) => ({ seen: latestSeen(record.seen, seen) })))?.revision,
    async rotate(tokenHash, record) {
      const old = keyOf(tokenHash);
      world.revoked.add(old);
      return ask((sessions) => {
        const next = { ...record, data: { ...sessions.get(old)?.data } };
        world.commit((server) => {
          server.sessions.delete(old);
          server.sessions.set(keyOf(next.tokenHash), next);
        });
        return next.data;
      });
    },
    revoke: async (tokenHash) => (await revoke(() => [keyOf(tokenHash)])) > 0,
    revokeAllOf: (userId) =>
      revoke((sessions) =>
        [...sessions.values()].filter((each) => each.userId === userId).map((each) => keyOf(each.tokenHash)),
      ),
    sweep: async () => 0,
  };
}

type Kind = "cookie" | "header" | "nothing";
type Counts = Record<string, number>;

/** Somebody with a session at a time, who has three tabs: two that write a field each, and one that reads. */
class Person {
  private readonly world: World;
  private readonly kind: Kind;
  private readonly userId = randomUUID();
  private token = "";
  /** One more with each session. */
  private generation = 0;
  private notes: string[] = [];
  private markedUntil = 0;
  /** By field: the newest value this person was told of, written or read. */
  private told: Counts = {};
  private values = 0;
  private isEnding = false;
  private revokedAt = Number.POSITIVE_INFINITY;

  constructor(world: World, kind: Kind) {
    this.world = world;
    this.kind = kind;
  }

  /** Another server leads: what it never heard of is lost. */
  lose(server: Server): void {
    const record = server.sessions.get(hashToken(this.token).toString("hex"));
    if (record === undefined) this.generation++;
    for (const [field, value] of Object.entries(this.told)) {
      this.told[field] = Math.min(value, Number(record?.data[field] ?? 0));
    }
    if (record === undefined && !this.isEnding) this.token = "";
  }

  async live(): Promise<void> {
    const { time, random } = this.world;
    await Promise.all([this.tab("a"), this.tab("b"), this.tab(undefined), this.change()]);
    await time.sleep(random.next());
  }

  private anyProcess(): Process {
    const { processes, random } = this.world;
    return processes[Math.floor(random.next() * processes.length)] as Process;
  }

  /** Signs in, signs in again, and is signed out from elsewhere. */
  private async change(): Promise<void> {
    const { time, random } = this.world;
    while (time.now() < runMs) {
      if (this.token === "") await this.begin(() => this.anyProcess().sessions.start(this.userId));
      await time.sleep(3_000 + 5_000 * random.next());
      if (this.token === "") continue;
      const { token } = this;
      if (random.next() < 0.5) await this.begin(() => this.anyProcess().sessions.rotate(token, this.userId));
      else {
        const { sessions } = this.anyProcess();
        this.isEnding = true;
        const isDone = await (random.next() < 0.5 ? sessions.revoke(token) : sessions.revokeAll(this.userId)).then(
          () => true,
          () => false,
        );
        if (isDone) this.revokedAt = time.now();
        await time.sleep(6_000);
        this.generation++;
        this.token = "";
        this.isEnding = false;
        this.revokedAt = Number.POSITIVE_INFINITY;
      }
    }
  }

  /** What is under way with the old session meanwhile proves nothing. */
  private async begin(
    work: () => Promise<{ readonly token: string; readonly data: Readonly<Record<string, unknown>> }>,
  ) {
    const { era } = this.world;
    this.generation++;
    this.token = "";
    const session = await work().catch(() => undefined);
    if (session === undefined || era !== this.world.era) return;
    this.generation++;
    this.told = Object.fromEntries(Object.entries(session.data).map(([field, value]) => [field, Number(value)]));
    this.token = session.token;
  }

  private async tab(field: string | undefined): Promise<void> {
    const { time, random } = this.world;
    while (time.now() < runMs) {
      await time.sleep(20 + (random.next() < 0.1 ? 6_000 : 300) * random.next());
      if (this.token !== "") await this.ask(field !== undefined && random.next() < 0.25 ? field : undefined);
    }
  }

  private async ask(field: string | undefined): Promise<void> {
    const { world, token, generation, notes: sent } = this;
    const { time, random, fault, counts } = world;
    const { era } = world;
    const told = { ...this.told };
    const sentAt = time.now();
    const facts: RequestFacts = {
      ...{ token, notes: sent, keepsNote: sent.length > 0, wantsNote: false },
      mayWrite: field !== undefined && fault !== "writes prove too",
      isMarked: fault !== "no mark" && time.now() < this.markedUntil,
    };
    counts.requests++;
    await time.sleep(20 * random.next());
    const arrived = this.anyProcess();
    const there = world.processes.find(({ region }) => region === world.master.region) ?? arrived;
    const isForwarded = field !== undefined && arrived.region !== there.region && random.next() < 0.7;
    const process = isForwarded ? there : arrived;
    if (isForwarded) await time.sleep(40);
    const write = field === undefined ? undefined : { field, value: ++this.values };
    const answer = await process.serve(facts, write).catch(() => undefined);
    if (isForwarded) arrived.near.changedElsewhere(token);
    if (answer === undefined) return;
    const isStill = generation === this.generation && era === world.era;
    const where = `${this.kind} at ${Math.round(answer.startedAt)} in ${process.region}`;
    if (isStill) this.check({ ...answer, sentAt, told, isWrite: field !== undefined, where });
    await time.sleep((isForwarded ? 40 : 0) + (random.next() < 0.2 ? 600 : 20) * random.next());
    if (generation !== this.generation || era !== world.era) return;
    this.keep(answer, sent);
    // What is lost may still be seen by whoever does not know of it.
    if (!answer.isLive || answer.era !== world.era) return;
    for (const each of ["a", "b"]) this.tell(each, Number(answer.data[each] ?? 0));
    if (write === undefined || !answer.isWritten) return;
    counts.acknowledged++;
    this.tell(write.field, write.value);
  }

  private keep(
    { note, isToMark }: { readonly note: string | undefined; readonly isToMark: boolean },
    sent: string[],
  ): void {
    const { time } = this.world;
    if (this.kind === "nothing") return;
    if (this.kind === "cookie") {
      if (note !== undefined) this.notes = [note];
      if (isToMark) this.markedUntil = time.now() + 5_000;
    } else if (note !== undefined) {
      this.notes = [...this.notes.filter((each) => !sent.includes(each)), note];
    }
  }

  private tell(field: string, value: number): void {
    this.told[field] = Math.max(value, this.told[field] ?? 0);
  }

  private check(seen: {
    readonly startedAt: number;
    readonly sentAt: number;
    readonly isLive: boolean;
    readonly data: Readonly<Record<string, unknown>>;
    readonly told: Counts;
    readonly isWrite: boolean;
    readonly where: string;
  }): void {
    const { violations } = this.world;
    const { startedAt, sentAt, isLive, data, told, isWrite, where } = seen;
    if (!isLive) {
      if (!this.isEnding) violations.push(`signed out: ${where}`);
      return;
    }
    if (sentAt > this.revokedAt && isWrite) violations.push(`revoked and written: ${where}`);
    if (startedAt > this.revokedAt + staleMsMax)
      violations.push(`revoked and read: ${where}, revoked at ${this.revokedAt}`);
    for (const [field, value] of Object.entries(told)) {
      if (Number(data[field] ?? 0) >= value) continue;
      violations.push(`own write unseen: ${where}: ${field} ${String(data[field])}, told ${value}`);
    }
  }
}

/** Runs one history. */
export async function simulate(random: Random, fault: Fault): Promise<SimulationResult> {
  const world = new World(random, fault);
  for (const region of ["eu", "us", "eu", "us", "us"] as const) world.processes.push(await startProcess(world, region));
  for (const kind of ["cookie", "header", "nothing", "cookie", "header"] as const)
    world.people.push(new Person(world, kind));
  for (const person of world.people) void person.live();
  world.time.every(700, () => world.disturb());
  for (let at = 6_000; at < runMs - 6_000; at += 9_000) {
    world.time.at(at + 3_000 * random.next(), () => random.next() < 0.7 && world.failOver());
  }
  await world.time.runUntil(runMs);
  const near = world.processes.reduce((sum, process) => sum + process.near.stats().near, 0);
  return { ...world.counts, near, violations: world.violations };
}
