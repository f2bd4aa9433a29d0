/**
 * A write in the region without the leader: forwarded as a request, and beside it by SQL over the distance; and what forwarding costs in CPU.
 *
 * `npm run bench:forwarding -- --round-trip-ms 80 --requests 2000`. Three web processes (all in this one; the third is far too, and has no member of the database near it), a leader and a follower, a Redis.
 * Half of the round trip is held back each way: between the processes, and for the second route between the far one and the leader. The
 * handler makes one transaction: two statements, and a message.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { Agent, request } from "node:http";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startTestRedis } from "@rungs/contract/test-redis";
import { startTestReplicas } from "@rungs/contract/test-replicas";
import { openUnreliableWay } from "@rungs/contract/unreliable-proxy";
import { pino } from "pino";
import { defineApp, defineService } from "rungs";
import { startApp } from "rungs/app";
import { defineEvent, handle } from "rungs/queue";
import { resolveTopology } from "rungs/topology";
import { z } from "zod";

interface Tables {
  visits: { user_id: string; value: number };
}

const { values } = parseArgs({
  options: { "round-trip-ms": { type: "string", default: "80" }, requests: { type: "string", default: "2000" } },
});
const roundTripMs = Number(values["round-trip-ms"]);
const requests = Number(values.requests);
const user = "0190c0de-0000-7000-8000-000000000001";
const visited = defineEvent("visits.visited", z.object({ user: z.uuid() }));

const visits = defineService<Tables>("visits", {
  tables: { visits: { shardBy: "user_id" } },
  migrations: [
    {
      name: "0001_visits",
      shards: { up: "create table visits (user_id uuid primary key, value int not null)", down: "drop table visits" },
    },
  ],
  on: { note: handle(visited, async () => {}) },
  routes(fastify, { db }) {
    const visit = () =>
      db.for(user).transaction(async (tx) => {
        await tx.selectFrom("visits").select("value").where("user_id", "=", user).forUpdate().execute();
        await tx
          .insertInto("visits")
          .values({ user_id: user, value: 1 })
          .onConflict((conflict) =>
            conflict.column("user_id").doUpdateSet((eb) => ({ value: eb("visits.value", "+", 1) })),
          )
          .execute();
        tx.publish(visited, { user });
        return {};
      });
    fastify.post("/forwarded", visit);
    fastify.post("/by-sql", { config: { region: "here" } }, visit);
    fastify.get("/read", () => db.for(user).selectFrom("visits").select("value").where("user_id", "=", user).execute());
  },
});

const folder = await mkdtemp(join(tmpdir(), "rungs-bench-"));
const [replicas, redis] = await Promise.all([
  startTestReplicas({ followers: 1, settingsOf: [{ "rungs.region": "eu" }, { "rungs.region": "us" }] }),
  startTestRedis(),
]);
const socketOf = ({ host, port }: { readonly host: string; readonly port: number }) => `${host}/.s.PGSQL.${port}`;
const sqlWay = await openUnreliableWay({ path: socketOf(replicas.leader) });

function start(region: "eu" | "us", leaderUrl: string, followerUrl: string | undefined, euUrl: string) {
  const environment = { LEADER: leaderUrl, FOLLOWER: followerUrl, REDIS: redis.url };
  const followers = followerUrl === undefined ? [] : [{ env: "FOLLOWER" }];
  const content = {
    dataDirectory: folder,
    web: { port: 0, loopLatenessMsMax: 0 },
    sessions: { url: { env: "REDIS" } },
    regions: {
      eu: { addresses: ["192.0.2.1"], isLeader: true, url: euUrl },
      // Nothing is forwarded there.
      us: { addresses: ["192.0.2.2"], url: "http://127.0.0.1:9" },
    },
    region,
    database: { shards: [{ leader: { env: "LEADER" }, followers }] },
  };
  const { topology } = resolveTopology({ file: { name: "bench", content } });
  return startApp(defineApp({ name: "visits", services: [visits] }), {
    topology,
    environment,
    log: pino({ level: "error" }),
  });
}

const member = replicas.followers[0]?.connectionString ?? "";
const eu = await start("eu", replicas.leader.connectionString, replicas.leader.connectionString, "http://127.0.0.1:9");
const requestWay = await openUnreliableWay({ port: Number(new URL(eu.address).port) });
const far = `postgres://${replicas.leader.user}@127.0.0.1:${sqlWay.port}/${replicas.leader.database}`;
const us = await start("us", far, member, `http://127.0.0.1:${requestWay.port}`);
const alone = await start("us", far, undefined, `http://127.0.0.1:${requestWay.port}`);
const agent = new Agent({ keepAlive: true });

function ask(address: string, method: string, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const sent = request(address + path, { method, agent }, (answer) => {
      answer.resume().once("end", () => {
        if (answer.statusCode === 200) resolve();
        else reject(new Error(`${method} ${path}: ${answer.statusCode}`));
      });
    });
    sent.once("error", reject).end();
  });
}

async function latency(name: string, address: string, method: string, path: string): Promise<void> {
  for (let warm = 0; warm < 5; warm++) await ask(address, method, path);
  const took: number[] = [];
  for (let number = 0; number < 50; number++) {
    const since = performance.now();
    await ask(address, method, path);
    took.push(performance.now() - since);
  }
  took.sort((one, other) => one - other);
  print(`${name.padEnd(44)} p50 ${took[25]?.toFixed(1).padStart(7)} ms   p95 ${took[47]?.toFixed(1).padStart(7)} ms`);
}

/** CPU of this process a request: both web processes, and this client. */
async function cpuOf(address: string): Promise<number> {
  for (let warm = 0; warm < 200; warm++) await ask(address, "POST", "/forwarded");
  const before = process.cpuUsage();
  let left = requests;
  const person = async () => {
    while (left-- > 0) await ask(address, "POST", "/forwarded");
  };
  await Promise.all(Array.from({ length: 8 }, person));
  const { user: own, system } = process.cpuUsage(before);
  return (own + system) / requests;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

try {
  print(`Node ${process.version}, ${cpus().length} x ${cpus()[0]?.model ?? "unknown"}, PostgreSQL ${replicas.version}`);
  const [direct, forwarded] = [await cpuOf(eu.address), await cpuOf(us.address)];
  print(
    `CPU a write: ${direct.toFixed(0)} us where the leader is, ${forwarded.toFixed(0)} us forwarded (with the relay between them)`,
  );
  for (const way of [sqlWay, requestWay]) way.delay(roundTripMs / 2);
  print(`Round trip between the regions: ${roundTripMs} ms`);
  await latency("a write where the leader is", eu.address, "POST", "/forwarded");
  await latency("a write in the far region, forwarded", us.address, "POST", "/forwarded");
  await latency("a write in the far region, by SQL", us.address, "POST", "/by-sql");
  await latency("a read in the far region, its member", us.address, "GET", "/read");
  await latency("a read there without a member, by SQL", alone.address, "GET", "/read");
  await latency("a read where the leader is", eu.address, "GET", "/read");
} finally {
  agent.destroy();
  for (const way of [sqlWay, requestWay]) way.delay(0);
  await Promise.all([alone.stop(), us.stop(), eu.stop()]);
  await Promise.all([sqlWay.cut(), requestWay.cut()]);
  await Promise.all([replicas.stop(), redis.stop()]);
  await rm(folder, { recursive: true, force: true });
}
