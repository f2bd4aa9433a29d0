/**
 * In which region each shard's leader is. The leader says it itself, by the setting `rungs.region` in its postgresql.conf, so that what is
 * known moves with it at a fail-over. Where it says nothing (managed servers let nobody add a setting), the topology does.
 *
 * Leaders are asked every half second, each on the connection on which it is asked about itself anyway. One that does not answer keeps the
 * region it had: requests for it are refused there, and whoever meets that asks again.
 */
import type { ShardConnection } from "../../database/index.ts";
import type { Logger } from "../../kernel/log.ts";
import { defaultLeaderRegion, type Topology } from "../../topology/index.ts";

/** Where one shard's leader is. */
export interface LeaderRegion {
  /** Its number, from 0. */
  readonly shard: number;
  readonly region: string;
  /** True when the leader says so; false when the topology does. */
  readonly isSaid: boolean;
}

/** Where all leaders are. */
export interface LeaderRegions {
  regionOf(shard: number): string;
  /** The region in which all leaders are; undefined while they are apart. */
  common(): string | undefined;
  all(): readonly LeaderRegion[];
  /** Asks all leaders now; resolves when they have answered, and after `msMax` at the latest. Never raises. */
  ask(msMax: number): Promise<void>;
  /** Hears of each leader that has moved. */
  onMove(listener: (moved: LeaderRegion) => void): void;
  stop(): void;
}

/** How often to ask. */
const pollMs = 500;
const sql = `select current_setting('rungs.region', true) as region, pg_is_in_recovery() as "isFollower"`;

/** Starts asking. Until a leader has answered, it is where the topology says. */
export function watchLeaderRegions(options: {
  readonly topology: Topology;
  /** By number. */
  readonly shards: readonly Pick<ShardConnection, "name" | "ask">[];
  readonly log: Logger;
}): LeaderRegions {
  const { topology, shards, log } = options;
  const watches = shards.map((shard, number) => new LeaderWatch({ topology, shard, number, log, moved }));
  const listeners: ((moved: LeaderRegion) => void)[] = [];
  const askAll = () => Promise.all(watches.map((watch) => watch.ask()));
  const timer = setInterval(() => void askAll(), pollMs).unref();

  function moved(to: LeaderRegion): void {
    for (const listener of listeners) listener(to);
  }

  const watchOf = (shard: number) => watches[shard] as LeaderWatch;
  return {
    regionOf: (shard) => watchOf(shard).place.region,
    common() {
      const { region } = watchOf(0).place;
      return watches.every(({ place }) => place.region === region) ? region : undefined;
    },
    all: () => watches.map(({ place }) => place),
    async ask(msMax) {
      let late: NodeJS.Timeout | undefined;
      const over = new Promise<void>((resolve) => {
        late = setTimeout(resolve, msMax);
      });
      await Promise.race([askAll(), over]);
      clearTimeout(late);
    },
    onMove: (listener) => void listeners.push(listener),
    stop: () => clearInterval(timer),
  };
}

class LeaderWatch {
  place: LeaderRegion;
  private readonly shard: Pick<ShardConnection, "name" | "ask">;
  private readonly log: Logger;
  private readonly topology: Topology;
  private readonly moved: (to: LeaderRegion) => void;
  private asking: Promise<void> | undefined;
  private readonly unknown = new Set<string>();

  constructor(options: {
    readonly topology: Topology;
    readonly shard: Pick<ShardConnection, "name" | "ask">;
    readonly number: number;
    readonly log: Logger;
    readonly moved: (to: LeaderRegion) => void;
  }) {
    this.topology = options.topology;
    this.shard = options.shard;
    this.log = options.log;
    this.moved = options.moved;
    this.place = { shard: options.number, region: regionByTopology(options.topology, options.number), isSaid: false };
  }

  /** One question at a time: who asks meanwhile waits for the same answer. */
  ask(): Promise<void> {
    this.asking ??= this.askNow().finally(() => {
      this.asking = undefined;
    });
    return this.asking;
  }

  private async askNow(): Promise<void> {
    try {
      const rows = await this.shard.ask<{ region: string | null; isFollower: boolean }>("rungs_leader_region", sql, []);
      const [row] = rows;
      if (row !== undefined && !row.isFollower) this.heard(row.region ?? "");
    } catch (error) {
      this.log.debug({ shard: this.shard.name, error }, "a leader did not say where it is");
    }
  }

  private heard(said: string): void {
    const { shard, region: before } = this.place;
    const isSaid = Object.hasOwn(this.topology.regions ?? {}, said);
    if (said !== "" && !isSaid) this.warnOf(said);
    const region = isSaid ? said : regionByTopology(this.topology, shard);
    this.place = { shard, region, isSaid };
    if (region === before) return;
    this.log.info({ shard: this.shard.name, from: before, to: region }, "a shard's leader is in another region now");
    this.moved(this.place);
  }

  private warnOf(region: string): void {
    if (this.unknown.has(region) || this.unknown.size >= 10) return;
    this.unknown.add(region);
    const message = "a leader says that it is in a region that the topology does not have; the topology's is taken";
    this.log.warn({ shard: this.shard.name, region }, message);
  }
}

function regionByTopology(topology: Topology, shard: number): string {
  const { shards } = topology.database;
  const own = typeof shards === "number" ? undefined : shards[shard]?.region;
  return own ?? defaultLeaderRegion(topology) ?? "";
}
