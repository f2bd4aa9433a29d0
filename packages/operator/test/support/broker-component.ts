/** What a stack's broker must do, whichever it is. */
import { execFileSync } from "node:child_process";
import type { Broker } from "rungs/queue/broker";
import { expect } from "vitest";
import type { Component, ProcessReport } from "../../src/stack/component.ts";
import { identify, isRunning } from "../../src/stack/process/process-identity.ts";

const subscriptions = [{ event: "thing.happened", handler: "work.note" }];
const message = {
  ...{ id: "0190c7a0-0000-7000-8000-000000000001", event: "thing.happened", version: 1, key: "a", payload: null },
  ...{ publishedAt: new Date(0), shard: 0 },
};

/** That it comes back after a crash with the message it had, and stops without leaving a process or a port. Closes `broker`. */
export async function expectLasting(options: {
  /** Runs; the first of its processes is the server. */
  readonly component: Component;
  readonly broker: Broker;
  readonly ports: Readonly<Record<string, number>>;
}): Promise<void> {
  const { component, broker, ports } = options;
  const [server] = component.processes() as [ProcessReport];
  await broker.declare(subscriptions);
  await broker.publish([message]);
  process.kill(server.pid, "SIGKILL");
  const restarted = () => {
    const [now] = component.processes();
    return now?.state === "ready" && now.pid !== server.pid;
  };
  await expect.poll(restarted, { timeout: 30_000 }).toBe(true);
  const waiting = async () => (await broker.backlog(subscriptions).catch(() => undefined))?.[0]?.messages;
  await expect.poll(waiting, { timeout: 15_000 }).toBe(1);
  const identities = component.processes().map(({ pid }) => identify(pid));
  await broker.close();
  await component.stop();
  expect(identities.filter((identity) => identity !== undefined && isRunning(identity))).toEqual([]);
  const taken = listening(undefined).map((address) => Number(address.split(":").at(-1)));
  expect(taken.filter((port) => Object.values(ports).includes(port))).toEqual([]);
}

/** Local addresses on which these processes listen, or all. */
export function listening(pids: readonly number[] | undefined): string[] {
  const lines = execFileSync("ss", ["-ltnpH"], { encoding: "utf8" }).split("\n").filter(Boolean);
  const wanted = lines.filter((line) => pids?.some((pid) => line.includes(`pid=${pid},`)) ?? true);
  return wanted.map((line) => line.trim().split(/\s+/)[3] as string);
}
