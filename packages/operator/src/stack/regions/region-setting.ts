/** What the operations on regions know of a stack. */

import type { Component } from "../component.ts";
import type { ClusterComponent } from "../databases/cluster.ts";
import type { DnsOfRegions } from "../dns/dns-of-regions.ts";
import type { RedisSet } from "../redis/redis-set.ts";

/** The parts that belong to a region alone, beside its members of the clusters. */
export interface RegionParts {
  readonly name: string;
  /** Where its users reach it. */
  readonly addresses: readonly string[];
  readonly components: readonly Component[];
}

export interface RegionOperationsOptions {
  readonly regions: readonly RegionParts[];
  readonly clusters: readonly ClusterComponent[];
  /** The region of a server of a shard, by its name. */
  readonly regionOfMember: (member: string) => string | undefined;
  readonly redis: RedisSet;
  readonly dns: DnsOfRegions;
  /** The app's, in every region. */
  readonly appPort: number;
  /** Of Patroni's orders. */
  readonly patroniPassword: string;
  /** Resolves when a shard's leader, as a region's processes reach it, takes writes; raises when not, within a few seconds. */
  readonly askLeader: (place: { readonly region: string; readonly shard: number }) => Promise<void>;
}

/** Names of a region's servers in a cluster. */
export function membersIn(
  { cluster }: ClusterComponent,
  region: string,
  regionOfMember: (member: string) => string | undefined,
): string[] {
  return cluster.members.map(({ name }) => name).filter((name) => regionOfMember(name) === region);
}
