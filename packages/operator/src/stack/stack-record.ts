/**
 * What a launcher writes down about its stack, in `<RUNGS_DIR>/stack.json`: for the commands beside it, for the next launcher, and for
 * clearing up after one that was killed.
 *
 * One launcher at a time holds the folder, by `launcher.json`, made with O_EXCL. The file of a dead launcher is moved aside;
 * if that turns out to have moved a living one's, it is put back.
 */
import { randomBytes } from "node:crypto";
import { link, open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "rungs";
import { identify, isRunning, type ProcessIdentity, signalProcess } from "./process/process-identity.ts";
import { writePrivate } from "./process/secrets.ts";

/** The record of a stack. */
export interface StackRecord {
  readonly launcher: ProcessIdentity;
  /** Path of the unix socket that `status`, `scale` and the others talk to. */
  readonly control: string;
  /** Ports by the name of their use, kept for the next start. */
  readonly ports: Readonly<Record<string, number>>;
  /** Children, to be signalled only while they are the same processes. */
  readonly children: readonly (ProcessIdentity & { readonly name: string; readonly stopSignal?: "SIGINT" })[];
}

const recordName = "stack.json";
const holderName = "launcher.json";
const clearUpMs = 12_000;

/** The record in this folder; undefined when there is none, or none that can be read. */
export async function readRecord(folder: string): Promise<StackRecord | undefined> {
  return readJson<StackRecord>(join(folder, recordName));
}

/** Writes the record, whole or not at all. */
export function writeRecord(folder: string, record: StackRecord): Promise<void> {
  return writePrivate(join(folder, recordName), `${JSON.stringify(record, undefined, 2)}\n`);
}

/** The launcher that runs on this folder; undefined when none does. */
export async function runningLauncher(folder: string): Promise<ProcessIdentity | undefined> {
  const holder = await readJson<ProcessIdentity>(join(folder, holderName));
  return holder !== undefined && isRunning(holder) ? holder : undefined;
}

/** Takes the folder for this process, and gives how to let go of it. Raises `DATA_DIRECTORY_IN_USE` with the holder's pid. */
export async function holdFolder(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, holderName);
  const own = identify(process.pid) ?? { pid: process.pid, startedAt: "" };
  for (let tries = 0; tries < 100; tries++) {
    const isTaken = await writeNew(path, JSON.stringify(own)).then(
      () => false,
      (error: NodeJS.ErrnoException) => {
        if (error.code === "EEXIST") return true;
        throw error;
      },
    );
    if (!isTaken) return () => rm(path, { force: true });
    const holder = await readJson<ProcessIdentity>(path);
    if (holder !== undefined && isRunning(holder)) throw inUse(folder, holder.pid);
    await removeOfDead(path, own);
  }
  throw inUse(folder, undefined);
}

/** Ends what a killed launcher left behind, by the record: asked first, then killed. Gives the names of what was there. */
export async function clearUp(record: StackRecord): Promise<string[]> {
  const left = record.children.filter(isRunning);
  for (const child of left) signalProcess(child, child.stopSignal ?? "SIGTERM");
  const deadline = performance.now() + clearUpMs;
  while (left.some(isRunning) && performance.now() < deadline) await sleep(20);
  for (const child of left) {
    signalProcess(child, "SIGKILL", { isGroup: true });
    // One that leads no group.
    signalProcess(child, "SIGKILL");
  }
  while (left.some(isRunning) && performance.now() < deadline + 2_000) await sleep(20);
  return left.map(({ name }) => name);
}

/** A file is there with its content or not at all, so that nobody reads half of it and takes its holder for dead. */
async function writeNew(path: string, content: string): Promise<void> {
  const beside = `${path}.${randomBytes(4).toString("hex")}`;
  const file = await open(beside, "wx", 0o600);
  try {
    await file.writeFile(content);
    await file.close();
    await link(beside, path);
  } finally {
    await rm(beside, { force: true });
  }
}

/**
 * Removes the file of a holder that is gone. One starter at a time looks and removes: of two, the later would remove the file of a
 * third that has taken the folder since it looked.
 */
async function removeOfDead(path: string, own: ProcessIdentity): Promise<void> {
  const guard = `${path}.clearing`;
  try {
    await writeNew(guard, JSON.stringify(own));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    const other = await readJson<ProcessIdentity>(guard);
    // Died in the middle of it.
    if (other !== undefined && !isRunning(other)) await rm(guard, { force: true });
    return void (await sleep(20));
  }
  try {
    // What is found of a holder that is gone stays until it is removed here; what is not there may be somebody's a moment later.
    const text = await readFile(path, "utf8").catch(() => undefined);
    if (text === undefined) return;
    const holder = parseJson<ProcessIdentity>(text);
    if (holder === undefined || !isRunning(holder)) await rm(path, { force: true });
  } finally {
    await rm(guard, { force: true });
  }
}

async function readJson<T>(path: string): Promise<T | undefined> {
  return parseJson<T>(await readFile(path, "utf8").catch(() => ""));
}

function parseJson<T>(text: string): T | undefined {
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}

function inUse(folder: string, pid: number | undefined): ConfigError {
  const who = pid === undefined ? "another launcher" : `the launcher with process id ${pid}`;
  return new ConfigError(
    "DATA_DIRECTORY_IN_USE",
    `${folder} is in use by ${who}. Stop it with: rungs down. Or start this one on other data: --dir FOLDER --port N.`,
  );
}
