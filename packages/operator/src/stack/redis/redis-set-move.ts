/**
 * The master's place, handed to another server as planned: no write is lost.
 *
 * 1. The Sentinels are told to be patient: for a moment the old master will look silent to them.
 * 2. Writes wait at the old master (`CLIENT PAUSE ... WRITE`), until the new one has all that came before.
 * 3. `SENTINEL FAILOVER`. Sentinels would leave the old one a master for some eight seconds after that, and it would take writes that
 *    are lost then: it is made a replica here, as soon as the new one is master.
 * 4. Writes that waited are told that this is no master any more, and go to the one that the Sentinels name.
 *
 * Broken off in the middle, the pause ends by itself, and the next start writes the Sentinels' patience anew.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { UnavailableError } from "rungs";
import { untilHolds } from "../process/until.ts";
import { askRedis, fieldsOf, infoOf, type RedisLogin } from "./redis-ask.ts";
import { masterName, silentMsMax } from "./redis-set-config.ts";
import type { SentinelPlace } from "./sentinel-word.ts";

/** Until the pause ends by itself. */
const pauseMsMax = 8_000;
const patienceMs = 20_000;
const caughtUpWithinMs = 3_000;
const priorityWithinMs = 15_000;
const noticeWithinMs = 11_000;
/** How long ago, in ms. */
const noticed = { min: 520, max: 700 };
const answerWithinMs = 2_000;
/** The lowest is chosen first (redis.conf, replica-priority). */
const priority = { chosen: 10, other: 100 };

interface Move {
  readonly servers: readonly RedisLogin[];
  readonly old: RedisLogin;
  readonly next: RedisLogin;
  readonly sentinels: readonly SentinelPlace[];
  readonly signal: AbortSignal;
}

/** Hands it over; gives for how many ms writes waited. Raises `UnavailableError` when it cannot, and all is as before then. */
export async function moveMaster(move: Move): Promise<number> {
  const { old, next, signal } = move;
  await expectFollowing(next, signal);
  await preferNext(move);
  const patient = await setPatience(move, patienceMs);
  let since = performance.now();
  let pauseMs = 0;
  try {
    const asked = await soonestToNotice(patient, next, signal);
    await askOne(old, ["CLIENT", "PAUSE", String(pauseMsMax), "WRITE"], signal);
    since = performance.now();
    await untilCaughtUp(move);
    await askOne(asked, ["SENTINEL", "FAILOVER", masterName], signal).catch((error: unknown) => {
      throw refused(error instanceof Error ? error.message : String(error));
    });
    await until(pauseMsMax - 1_000, "the new master was not promoted", signal, async () => {
      return (await replicationOf(next, signal))["role"] === "master";
    });
    await askOne(old, ["REPLICAOF", "127.0.0.1", String(next.port)], signal);
    await until(pauseMsMax - 1_000, "the Sentinels did not name the new master", signal, async () => {
      const named = await Promise.all(patient.map((sentinel) => masterPortBy(sentinel, signal)));
      return named.every((port) => port === next.port);
    });
  } finally {
    const late = AbortSignal.timeout(answerWithinMs);
    await askRedis(old, [["CLIENT", "UNPAUSE"]], late).catch(() => {});
    pauseMs = performance.now() - since;
    await setPatience({ ...move, signal: late }, silentMsMax);
  }
  // What only listens would not notice, and what is said at the old one from now on would be heard there alone.
  await sleep(100, undefined, { signal });
  for (const kind of ["normal", "pubsub"]) {
    await askOne(old, ["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"], signal).catch(() => {});
  }
  return Math.round(pauseMs);
}

/**
 * The Sentinel that will notice the promotion first. During a fail-over they ask a server once a second; the promotion comes a quarter of a
 * second after the order. So the best one asked it some 0.6 s ago; each asks every ten seconds, and the right moment is waited for.
 */
async function soonestToNotice(
  sentinels: readonly SentinelPlace[],
  next: RedisLogin,
  signal: AbortSignal,
): Promise<SentinelPlace> {
  const end = performance.now() + noticeWithinMs;
  while (performance.now() < end) {
    for (const sentinel of sentinels) {
      const [reply] = await askRedis(sentinel, [["SENTINEL", "REPLICAS", masterName]], within(signal)).catch(() => []);
      const known = (Array.isArray(reply) ? reply : []).map(fieldsOf).find(({ port }) => Number(port) === next.port);
      const agoMs = Number(known?.["info-refresh"]);
      if (agoMs >= noticed.min && agoMs <= noticed.max) return sentinel;
    }
    await sleep(25, undefined, { signal });
  }
  const [any] = sentinels;
  if (any === undefined) throw refused("no Sentinel answers");
  return any;
}

async function masterPortBy(sentinel: SentinelPlace, signal: AbortSignal): Promise<number> {
  const ask = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName];
  const [reply] = await askRedis(sentinel, [ask], within(signal));
  return Array.isArray(reply) ? Number(reply[1]) : 0;
}

async function expectFollowing(next: RedisLogin, signal: AbortSignal): Promise<void> {
  const info = await replicationOf(next, signal).catch(() => undefined);
  if (info?.["role"] === "slave" && info["master_link_status"] === "up") return;
  throw refused(`the server on port ${next.port} does not copy the master just now`);
}

/** With several replicas the Sentinels have to know which one is meant; they ask them for it every ten seconds. */
async function preferNext({ servers, old, next, sentinels, signal }: Move): Promise<void> {
  const replicas = servers.filter(({ port }) => port !== old.port);
  if (replicas.length < 2) return;
  for (const server of replicas) {
    const value = server.port === next.port ? priority.chosen : priority.other;
    await askOne(server, ["CONFIG", "SET", "replica-priority", String(value)], signal).catch(() => {});
  }
  await until(priorityWithinMs, "the Sentinels did not see which server is meant", signal, async () => {
    const seen = await Promise.all(
      sentinels.map(async (sentinel) => {
        const [reply] = await askRedis(sentinel, [["SENTINEL", "REPLICAS", masterName]], within(signal));
        const fields = (Array.isArray(reply) ? reply : []).map(fieldsOf);
        return fields.every(({ port, "slave-priority": seenPriority }) =>
          Number(port) === next.port
            ? Number(seenPriority) === priority.chosen
            : Number(seenPriority) > priority.chosen,
        );
      }),
    );
    return seen.every(Boolean);
  });
}

/** How long a master may be silent, at every Sentinel; gives those that answered. */
async function setPatience({ sentinels, signal }: Move, ms: number): Promise<SentinelPlace[]> {
  const set = ["SENTINEL", "SET", masterName, "down-after-milliseconds", String(ms)];
  const done = await Promise.all(
    sentinels.map((sentinel) =>
      askOne(sentinel, set, signal).then(
        () => [sentinel],
        () => [],
      ),
    ),
  );
  return done.flat();
}

async function untilCaughtUp({ old, next, signal }: Move): Promise<void> {
  await until(caughtUpWithinMs, "the new master did not catch up", signal, async () => {
    const master = await replicationOf(old, signal);
    const replica = await replicationOf(next, signal);
    return Number(replica["slave_repl_offset"]) >= Number(master["master_repl_offset"]);
  });
}

async function replicationOf(login: RedisLogin, signal: AbortSignal): Promise<Readonly<Record<string, string>>> {
  const [reply] = await askRedis(login, [["INFO", "replication"]], within(signal));
  return infoOf(reply);
}

async function askOne(login: RedisLogin, command: readonly string[], signal: AbortSignal): Promise<void> {
  await askRedis(login, [command], within(signal));
}

const within = (signal: AbortSignal) => AbortSignal.any([signal, AbortSignal.timeout(answerWithinMs)]);

function until(withinMs: number, otherwise: string, signal: AbortSignal, holds: () => Promise<boolean>): Promise<void> {
  const late = () => refused(`${otherwise} within ${withinMs / 1_000} s`);
  return untilHolds({ withinMs, everyMs: 20, signal, holds, late });
}

function refused(why: string): UnavailableError {
  return new UnavailableError("REDIS_UNREACHABLE", `The master of the sessions' Redis was not moved: ${why}.`, {
    canRetry: true,
  });
}
