/**
 * gdnsd in front of a stack's regions, and what a person says of them.
 *
 * Which regions are drained is in `<RUNGS_DIR>/regions.json`, so that a restart sends nobody back to one that was left for a reason.
 */
import { chown, copyFile, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { UnavailableError } from "rungs";
import type { RegionOverride, Zone } from "rungs/dns";
import { resourceName } from "rungs/dns/gdnsd";
import type { Component } from "../component.ts";
import { isOpen } from "../front/nginx.ts";
import { writePrivate } from "../process/secrets.ts";
import { ownedFolder, type ServerUser, serverHome } from "../process/server-home.ts";
import { untilHolds } from "../process/until.ts";
import { type GdnsdComponent, gdnsdComponent } from "./gdnsd.ts";
import { type LocalRegion, type RegionalZone, regionalZone } from "./regional-zone.ts";
import { countriesIn, exists } from "./zone-file.ts";

/** Name of its port. */
export const dnsPortName = "dns";

export interface DnsOfRegionsOptions {
  /** Paths of gdnsd and gdnsdctl. */
  readonly program: string;
  readonly controlProgram: string;
  /** The stack's folder. */
  readonly folder: string;
  readonly logFolder: string;
  /** For UDP and TCP, on 127.0.0.1. */
  readonly port: number;
  readonly appFolder: string;
  readonly appName: string;
  readonly regions: readonly LocalRegion[];
  /** The app's, in every region. */
  readonly appPort: number;
  /** Names of the parts that its checks ask: begun before them, it would take all regions for down at first. */
  readonly needs: readonly string[];
}

/** Where to ask, for `rungs regions`. */
export interface DnsReport {
  readonly zone: string;
  /** Whole names that lead to regions. */
  readonly names: readonly string[];
  readonly port: number;
  /** The app's file that the zone comes from; null: it was made up. */
  readonly file: string | null;
}

/** What gdnsd thinks of a region by its checks. "unknown": nobody asks it, or gdnsd does not answer. */
export type RegionHealth = "up" | "down" | "unknown";

export interface DnsOfRegions {
  readonly component: Component;
  readonly report: DnsReport;
  /** What should be told at the start. */
  readonly remarks: readonly string[];
  /** Names of the drained regions. */
  drained(): readonly string[];
  /** Drains these regions and no others; resolves when gdnsd has taken it in. */
  drain(names: readonly string[], signal: AbortSignal): Promise<void>;
  /** By the checks, whatever a person says. Never raises. */
  health(signal: AbortSignal): Promise<Readonly<Record<string, RegionHealth>>>;
}

const stateFile = "regions.json";
const takenInWithinMs = 10_000;

/** Makes it. Raises `CONFIG_INVALID` for an app's zone that has mistakes. */
export async function dnsOfRegions(options: DnsOfRegionsOptions): Promise<DnsOfRegions> {
  const { program, controlProgram, folder, logFolder, port, appFolder, appName, regions, appPort } = options;
  const home = await serverHome(folder, "gdnsd");
  const source = countriesIn(folder);
  const hasCountries = await exists(source);
  const isReadable = hasCountries && (home.user === undefined || (await isOpen(folder)));
  const database = !hasCountries ? undefined : isReadable ? source : join(home.folder, "country.mmdb");
  const found: RegionalZone = await regionalZone({ appFolder, appName, regions, port: appPort, hasCountries });
  const { zone } = found;
  let drained = await drainedBefore(folder, regions);
  const overrides = (): Readonly<Record<string, RegionOverride>> =>
    Object.fromEntries(drained.map((name) => [name, "drained" as const]));
  const gdnsd: GdnsdComponent = gdnsdComponent({
    ...{ program, controlProgram, logFolder, port, zone, database, user: home.user },
    folder: join(home.folder, "server"),
    overrides: overrides(),
  });
  return {
    component: {
      ...gdnsd,
      needs: options.needs,
      async start(signal) {
        // The server's user cannot reach the file in a closed folder.
        if (database !== undefined && !isReadable) await copyFor(home.user, source, database);
        await ownedFolder(home.folder, home.user);
        await gdnsd.start(signal);
      },
    },
    report: {
      ...{ zone: zone.zone, port, file: found.file ?? null },
      names: Object.keys(zone.records).map((name) => (name === "@" ? zone.zone : `${name}.${zone.zone}`)),
    },
    remarks: found.remarks,
    drained: () => drained,
    async drain(names, signal) {
      drained = regions.map(({ name }) => name).filter((name) => names.includes(name));
      await writePrivate(join(folder, stateFile), `${JSON.stringify({ drained })}\n`);
      await gdnsd.override(overrides(), signal);
      await untilTakenIn({ gdnsd, zone, drained: () => drained, signal });
    },
    health: (signal) => healthOf({ gdnsd, zone, regions, signal }),
  };
}

async function copyFor(user: ServerUser | undefined, from: string, to: string): Promise<void> {
  const beside = `${to}.new`;
  await copyFile(from, beside);
  if (user !== undefined) await chown(beside, user.uid, user.gid);
  await rename(beside, to);
}

async function drainedBefore(folder: string, regions: readonly LocalRegion[]): Promise<readonly string[]> {
  const text = await readFile(join(folder, stateFile), "utf8").catch(() => "{}");
  try {
    const { drained = [] } = JSON.parse(text) as { drained?: readonly string[] };
    return regions.map(({ name }) => name).filter((name) => drained.includes(name));
  } catch {
    return [];
  }
}

/** A person's word shows in gdnsd's states of the records by place; records with weights have only addresses, asked alike. */
function untilTakenIn(options: {
  readonly gdnsd: GdnsdComponent;
  readonly zone: Zone;
  readonly drained: () => readonly string[];
  readonly signal: AbortSignal;
}): Promise<void> {
  const { gdnsd, zone, drained, signal } = options;
  return untilHolds({
    ...{ withinMs: takenInWithinMs, signal },
    async holds() {
      const states = await gdnsd.states(signal);
      return Object.keys(zone.regions).every((region) =>
        Object.keys(zone.records).every((record) => {
          const state = states[`geoip/${resourceName(record)}/${region}`];
          return state === undefined || (state === "DOWN") === drained().includes(region);
        }),
      );
    },
    late: (cause) =>
      new UnavailableError(
        "SERVER_START_FAILED",
        `gdnsd has not taken in which regions are drained within ${takenInWithinMs / 1_000} s; it will when it runs again.`,
        { canRetry: true, cause },
      ),
  });
}

async function healthOf(options: {
  readonly gdnsd: GdnsdComponent;
  readonly zone: Zone;
  readonly regions: readonly LocalRegion[];
  readonly signal: AbortSignal;
}): Promise<Readonly<Record<string, RegionHealth>>> {
  const { gdnsd, zone, regions, signal } = options;
  const states = await gdnsd.states(signal).catch((): Readonly<Record<string, string>> => ({}));
  const checked = Object.entries(zone.records).filter(([, { health }]) => health !== undefined);
  return Object.fromEntries(
    regions.map(({ name, addresses }) => {
      const words = checked.flatMap(([record]) =>
        addresses.flatMap((address) => states[`${address}/${resourceName(record)}_health`] ?? []),
      );
      const isDown = words.some((word) => word === "DOWN");
      return [name, words.length === 0 ? "unknown" : isDown ? "down" : "up"] as const;
    }),
  );
}
