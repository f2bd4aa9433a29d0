/**
 * gdnsd of a stack: the authoritative name server that sends users to their region.
 *
 * - *start*: files from the zone, then the server; ready when it answers for the zone.
 * - *change*: new files, checked by gdnsd itself; then a second server takes over the first one's sockets and ends it, so that no
 *   question is lost. `gdnsdctl replace` would leave the new one without a parent. A change that gdnsd refuses changes nothing.
 * - *override*: a person's word on a region, in a file that gdnsd watches; it lasts over restarts.
 */
import { execFile } from "node:child_process";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { ConfigError, UnavailableError } from "rungs";
import type { RegionOverride, Zone } from "rungs/dns";
import { gdnsdAdminState, gdnsdFiles, needsCountries } from "rungs/dns/gdnsd";
import type { Component } from "../component.ts";
import { ManagedProcess } from "../process/managed-process.ts";
import { writePrivate } from "../process/secrets.ts";
import { ownedFolder, type ServerUser } from "../process/server-home.ts";
import { askName } from "./dns-probe.ts";

export interface GdnsdOptions {
  /** Path of gdnsd; gdnsdctl is looked for beside it and on the PATH. */
  readonly program: string;
  readonly controlProgram: string;
  /** The folder of its own, and who owns it. */
  readonly folder: string;
  readonly user: ServerUser | undefined;
  readonly logFolder: string;
  /** On 127.0.0.1. */
  readonly port: number;
  readonly zone: Zone;
  /** Countries in MaxMind's layout, as `rungs dns update-data` writes them; gdnsd reads the file again when it is replaced. */
  readonly database?: string | undefined;
  /** What people had said before this start; default nothing. */
  readonly overrides?: Readonly<Record<string, RegionOverride>>;
}

/** A component that takes other zones and a person's word. */
export interface GdnsdComponent extends Component {
  /** Answers by another zone from now on, without a gap. Raises `CONFIG_INVALID` with gdnsd's own words, and goes on as before. */
  change(zone: Zone, signal: AbortSignal): Promise<void>;
  /** Says all that people say of regions; answers follow within some two seconds. */
  override(overrides: Readonly<Record<string, RegionOverride>>, signal: AbortSignal): Promise<void>;
  /** What gdnsd thinks of each address and region, by its own names, such as "192.0.2.1/www_health": "UP", "DOWN" or "NA" (nothing was said). */
  states(signal: AbortSignal): Promise<Readonly<Record<string, string>>>;
}

const name = "gdnsd";
const host = "127.0.0.1";
const run = promisify(execFile);
const controlTimeoutMs = 10_000;
const takeOverMsMax = 15_000;

/** Makes the component; the files are written when it starts. */
export function gdnsdComponent(options: GdnsdOptions): GdnsdComponent {
  const { program, controlProgram, folder, user, logFolder, port, database } = options;
  let { zone, overrides = {} } = options;
  const configFolder = join(folder, "etc");
  const stateFolder = join(folder, "state");
  const asUser = user === undefined ? {} : { uid: user.uid, gid: user.gid };
  const control = async (action: string, signal: AbortSignal) =>
    run(controlProgram, ["-c", configFolder, "-o", action], {
      ...asUser,
      signal,
      timeout: controlTimeoutMs,
      maxBuffer: 8 * 1024 * 1024,
    });
  const server = (flags: readonly string[], probe: (signal: AbortSignal) => Promise<void>) =>
    new ManagedProcess({
      name,
      role: "dns",
      command: program,
      args: ["-c", configFolder, ...flags, "start"],
      folder,
      environment: { PATH: process.env["PATH"], LC_ALL: "C.UTF-8" },
      port,
      user,
      logFolder,
      probe,
    });
  const answers = (signal: AbortSignal) => askName({ host, port, name: zone.zone, signal });
  const write = async (of: Zone) => {
    const files = gdnsdFiles(of, {
      listen: [{ host, port }],
      database,
      runFolder: join(folder, "run"),
      stateFolder,
      serial: Math.floor(Date.now() / 1_000),
    });
    await writePrivate(join(configFolder, "config"), files.config, user);
    await writePrivate(join(configFolder, "zones", of.zone), files.zone, user);
  };
  const check = async (signal: AbortSignal) => {
    try {
      await run(program, ["-c", configFolder, "checkconf"], { ...asUser, signal, timeout: controlTimeoutMs });
    } catch (error) {
      signal.throwIfAborted();
      const { stderr } = error as { stderr?: string };
      const told = (stderr ?? "").split("\n").filter((line) => /error|fatal/i.test(line));
      throw new ConfigError(
        "CONFIG_INVALID",
        `gdnsd does not take the zone ${zone.zone}: ${told.join(" ") || stderr}`,
        { cause: error },
      );
    }
  };
  const writeOverrides = async () => {
    await writePrivate(join(stateFolder, "admin_state"), gdnsdAdminState(zone, overrides), user);
  };
  let current = server([], answers);
  let wasStarted = false;

  return {
    name,
    role: "dns",
    needs: [],
    plan: [program, "-c", configFolder, "start"].join(" "),
    async start(signal) {
      if (database === undefined && needsCountries(zone)) throw databaseMissing(zone);
      // Every file in there is a zone to gdnsd, also one that a stack of before has left.
      await rm(join(configFolder, "zones"), { recursive: true, force: true });
      for (const path of [folder, configFolder, join(configFolder, "zones"), stateFolder])
        await ownedFolder(path, user);
      await mkdir(logFolder, { recursive: true });
      await write(zone);
      await writeOverrides();
      await check(signal);
      await current.start(signal);
      wasStarted = true;
    },
    stop: () => current.stop(),
    processes: () => current.report(),
    async change(next, signal) {
      if (!wasStarted) throw new UnavailableError("SERVER_START_FAILED", "gdnsd does not run.", { canRetry: true });
      if (database === undefined && needsCountries(next)) throw databaseMissing(next);
      if (next.zone !== zone.zone)
        throw new ConfigError("CONFIG_INVALID", `This gdnsd serves ${zone.zone}, not ${next.zone}.`);
      const before = zone;
      try {
        await write(next);
        await check(signal);
        zone = next;
        await writeOverrides();
        current = await takeOver(current, server, control, signal);
      } catch (error) {
        zone = before;
        await write(zone);
        await writeOverrides();
        throw error;
      }
    },
    async override(next) {
      overrides = next;
      await writeOverrides();
    },
    async states(signal) {
      const { stdout } = await control("states", signal);
      return statesOf(stdout);
    },
  };
}

/** Starts another server, which ends the old one when it has its sockets; the old one's end is none that it must be started again for. */
async function takeOver(
  old: ManagedProcess,
  server: (flags: readonly string[], probe: (signal: AbortSignal) => Promise<void>) => ManagedProcess,
  control: (action: string, signal: AbortSignal) => Promise<{ stderr: string }>,
  signal: AbortSignal,
): Promise<ManagedProcess> {
  const oldPid = old.pid;
  const next: ManagedProcess = server(["-R"], async (within) => {
    const { stderr } = await control("status", within);
    if (next.pid === undefined || !new RegExp(`\\b${next.pid}\\b`).test(stderr))
      throw new Error("The old one answers still.");
  });
  old.state = "restarting";
  try {
    await next.start(AbortSignal.any([signal, AbortSignal.timeout(takeOverMsMax)]));
    for (let tries = 0; old.pid === oldPid && tries < 200; tries++) await sleep(25, undefined, { signal });
    await old.stop();
    return next;
  } catch (error) {
    await next.stop();
    old.state = "ready";
    throw error;
  }
}

/** From the JSON of `gdnsdctl states`; a state that a person gave bears an exclamation mark there. */
function statesOf(json: string): Record<string, string> {
  const services = JSON.parse(json) as Record<string, { state: string }>;
  return Object.fromEntries(Object.entries(services).map(([service, { state }]) => [service, state.replace("!", "")]));
}

function databaseMissing({ zone }: Zone): ConfigError {
  return new ConfigError(
    "CONFIG_INVALID",
    `The zone ${zone} routes by place, and there is no database of countries. Type: rungs dns update-data`,
  );
}
