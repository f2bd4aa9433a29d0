/** The regions of a stack on this machine: each a set of servers of its own, told apart by the names of their parts and by addresses. */
import { join } from "node:path";
import { ConfigError, UnsupportedError } from "rungs";
import { Secret, type Topology, webGroup, workersGroup } from "rungs/topology";
import { brokerVariable, cacheVariable, redisVariable } from "../variables.ts";

/** One region, or all of a stack without any. */
export interface PlannedRegion {
  /** Undefined: the stack has no regions, and this is all of it. */
  readonly name: string | undefined;
  /** What the names of its parts, processes and ports begin with: "eu-", or nothing. */
  readonly prefix: string;
  /** The address on which it is open to its users. */
  readonly host: string;
  /** The folder of its servers' settings. */
  readonly folder: string;
}

/** What `--regions` and the flags beside it say. */
export interface RegionChoice {
  /** In the order of the flag: leaders begin in the first. */
  readonly names: readonly string[];
  /** Between any two of them, there and back; 0: none. */
  readonly roundTripMs: number;
  /** Whether shard i begins with its leader in region i, by turns; default: all in the first. */
  readonly isSpread: boolean;
}

const regionsMax = 8;
const nameForm = /^[a-z][a-z0-9-]{0,30}$/;
/** Web processes and workers of each region where nobody said how many: several regions share this machine. */
const processesDefault = { [webGroup]: 2, [workersGroup]: 1 } as const;

/** Names from the flag. Raises `CONFIG_INVALID` for what names no regions. */
export function regionNames(text: string): string[] {
  const names = text.split(",").map((name) => name.trim());
  const wrong = names.find((name) => !nameForm.test(name));
  if (wrong !== undefined) {
    const shown = JSON.stringify(wrong.slice(0, 40));
    throw noRegions(`expected names of a-z, 0-9 and -, with commas between them, got ${shown}`);
  }
  if (names.length < 2 || names.length > regionsMax) {
    throw noRegions(`expected 2 to ${regionsMax} regions, got ${names.length}`);
  }
  for (const [index, name] of names.entries()) {
    // A part of the one could go by the same name as a part of the other.
    const other = names.find((each, at) => at !== index && (each === name || each.startsWith(`${name}-`)));
    if (other !== undefined) throw noRegions(`"${name}" and "${other}" could not be told apart`);
  }
  return names;
}

function noRegions(what: string): ConfigError {
  return new ConfigError("CONFIG_INVALID", `--regions: ${what}. Write for example: --regions eu,us`);
}

/** All regions of a stack; one without a name where it has none. */
export function plannedRegions(
  choice: RegionChoice | undefined,
  { folder, host }: { readonly folder: string; readonly host: string },
): readonly PlannedRegion[] {
  if (choice === undefined) return [{ name: undefined, prefix: "", host, folder }];
  return choice.names.map((name, index) => ({
    name,
    prefix: `${name}-`,
    host: `127.1.${index + 1}.1`,
    folder: join(folder, "regions", name),
  }));
}

/** A topology for a stack without regions. Raises `CONFIG_INVALID` where the settings speak of them: here would be only one. */
export function withoutRegions(topology: Topology): Topology {
  const names = Object.keys(topology.regions ?? {});
  if (names.length === 0) return topology;
  throw new ConfigError(
    "CONFIG_INVALID",
    `The settings have regions (${names.join(", ")}). Say that all of them are to run on this machine: --regions ${names.length < 2 ? "eu,us" : names.join(",")}. Or leave regions out of the settings.`,
  );
}

/** What {@link withRegions} must know beside the topology. */
export interface RegionalOptions {
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The broker that a flag names. */
  readonly broker?: string | undefined;
  /** Whether somebody said the setting at this path, and not a preset. */
  readonly isChosen: (path: string) => boolean;
}

/**
 * The topology that each region carries out: without a broker, on few processes where nobody said how many. Raises `CONFIG_INVALID` and
 * `CAPABILITY_MISSING` for what does not go together with regions.
 */
export function withRegions(topology: Topology, regions: readonly PlannedRegion[], options: RegionalOptions): Topology {
  const { isChosen } = options;
  refuseBroker(topology, options);
  refuseElsewhere(topology);
  const { url: _, ...queue } = topology.queue;
  const { [workersGroup]: workers, ...services } = topology.services ?? {};
  const few = (path: string, group: keyof typeof processesDefault, said: number) =>
    isChosen(path) ? said : processesDefault[group];
  const processes = few(`services.${workersGroup}.processes`, workersGroup, workers?.processes ?? 1);
  return {
    ...topology,
    queue,
    web: {
      ...topology.web,
      balancer: topology.web.balancer ?? "nginx",
      processes: few("web.processes", webGroup, topology.web.processes),
    },
    ...(workers === undefined ? {} : { services: { [workersGroup]: { ...workers, processes }, ...services } }),
    regions: addressesOf(regions, {}),
  };
}

/** What a process is told of the regions. `urls`: inner addresses of the others, as they are reached from its own. */
export function regionSettings(
  regions: readonly PlannedRegion[],
  { name, urls }: { readonly name: string; readonly urls: Readonly<Record<string, string>> },
): Pick<Topology, "region" | "regions"> {
  return { region: name, regions: addressesOf(regions, urls) };
}

function addressesOf(
  regions: readonly PlannedRegion[],
  urls: Readonly<Record<string, string>>,
): NonNullable<Topology["regions"]> {
  const entries = regions.map(({ name = "", host }, index) => {
    const url = urls[name];
    return [
      name,
      { addresses: [host], ...(index === 0 ? { isLeader: true } : {}), ...(url === undefined ? {} : { url }) },
    ] as const;
  });
  return Object.fromEntries(entries);
}

function refuseBroker({ queue: { url } }: Topology, { environment, broker }: RegionalOptions): void {
  const isPreset =
    url instanceof Secret && url.variable === brokerVariable && (environment[brokerVariable] ?? "") === "";
  if (broker === undefined && (url === undefined || isPreset)) return;
  const [what, undo] =
    broker === undefined
      ? ["queue.url names", `Take it out of the settings, or unset ${brokerVariable}`]
      : [`--queue ${broker} would start`, "Leave --queue out"];
  throw new ConfigError(
    "CONFIG_INVALID",
    `--regions: ${what} one broker for all, in one region: with that region all would be lost that it had acknowledged and nobody had handled. Jobs stay in the shards' job tables, which are copied to another region before they are acknowledged. ${undo}.`,
  );
}

function refuseElsewhere({ web, region, services = {} }: Topology): void {
  const apart = Object.keys(services).find((name) => services[name]?.database !== undefined);
  if (apart !== undefined) {
    throw new UnsupportedError(
      "CAPABILITY_MISSING",
      `--regions: services.${apart}.database is reached by messages of a broker, and with several regions there is none in this version. Leave it out.`,
    );
  }
  if (region !== undefined) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `region is "${region}", which is for one process alone; rungs up starts the processes of all regions. Leave it out, or unset RUNGS_REGION.`,
    );
  }
  if (web.host === "127.0.0.1") return;
  throw new ConfigError(
    "CONFIG_INVALID",
    `--regions: each region listens on an address of its own, 127.1.1.1, 127.1.2.1 and so on, and web.host is ${web.host}. Leave --host and HOST out.`,
  );
}

/** Raises `CONFIG_INVALID` for servers of the operator's: nobody could say in which region they are. */
export function refuseServersOfYours(
  { database, sessions, cache }: Topology,
  here: { readonly clusters: number; readonly hasRedis: boolean; readonly hasCache: boolean },
): void {
  const refuse = (what: string, how: string) => {
    throw new ConfigError("CONFIG_INVALID", `--regions starts all servers of all regions here, and ${what}. ${how}.`);
  };
  if (here.clusters === 0) {
    if (typeof database.shards === "number")
      refuse("embedded databases are not copied to another region", "Add --rung 5");
    refuse("the databases are servers of yours", "Unset their variables, such as SHARD_0_LEADER_URL");
  }
  if (!here.hasRedis) {
    if (sessions.url === undefined) refuse("sessions have no Redis", "Add --rung 5");
    refuse("sessions.url names a server of yours", `Unset ${redisVariable}`);
  }
  if (!here.hasCache && cache.url !== undefined) refuse("cache.url names a server of yours", `Unset ${cacheVariable}`);
}
