/**
 * Followers of a stack at rung 4 that show late what they have received, as under load or over a distance: of each shard one is
 * 5 s behind, and another stands still again and again.
 *
 * The delay is given to the server's Patroni, which takes back what it did not set itself; a replay that was paused it resumes within
 * a second.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { seededRandom } from "rungs";
import type { ShardConnection } from "rungs/database";
import { openPostgres } from "rungs/database/postgres";

/** How far behind one follower of each shard is; the app has to be allowed to read from one so late. */
export const lateMs = 5_000;

export interface ReplicaLag {
  /** How often a follower stood still so far. */
  pauses(): number;
  stop(): Promise<void>;
}

interface Member {
  readonly name: string;
  readonly patroniPort: number;
  readonly server: ShardConnection;
}

const membersPerShard = 3;
const withinMs = 30_000;

/** Begins; resolves once one follower of each shard is late. `folder` is the stack's. */
export async function delayFollowers(options: {
  readonly folder: string;
  readonly shards: number;
  readonly ports: Readonly<Record<string, number>>;
}): Promise<ReplicaLag> {
  const { folder, shards, ports } = options;
  const secret = async (name: string) => (await readFile(join(folder, "secrets", `${name}-password`), "utf8")).trim();
  const [superuser, patroni] = await Promise.all([secret("postgres-superuser"), secret("patroni")]);
  const random = seededRandom(Number(process.env["RUNGS_TEST_SEED"] ?? 1));
  const over = new AbortController();
  let pauses = 0;
  const standStill = async ({ server }: Member) => {
    while (!over.signal.aborted) {
      await server.query(undefined, "select pg_wal_replay_pause()", []);
      pauses++;
      await sleep(50 + random.next() * 400);
      await server.query(undefined, "select pg_wal_replay_resume()", []);
      await sleep(50 + random.next() * 800);
    }
  };
  const opened: Member[] = [];
  const tasks: Promise<void>[] = [];
  for (let shard = 0; shard < shards; shard++) {
    const members = Array.from({ length: membersPerShard }, (_, index): Member => {
      const name = `postgres-${shard}-${index + 1}`;
      const address = {
        ...{ host: "127.0.0.1", port: ports[name] as number, user: "postgres", database: "postgres" },
        password: superuser,
      };
      const server = openPostgres({ name, address, pool: { connectionsMax: 1 } });
      return { name, patroniPort: ports[`${name}-patroni`] as number, server };
    });
    opened.push(...members);
    const follows = await Promise.all(members.map(({ server }) => isSo(server, "pg_is_in_recovery()")));
    const [late, still] = members.filter((_, index) => follows[index]) as [Member, Member];
    await delay({ member: late, file: join(folder, "clusters", `shard-${shard}`, late.name, "patroni.yml"), patroni });
    tasks.push(standStill(still));
  }
  return {
    pauses: () => pauses,
    async stop() {
      over.abort();
      await Promise.all(tasks);
      await Promise.all(opened.map(({ server }) => server.close()));
    },
  };
}

/** Has its Patroni delay what the server shows. */
async function delay(options: {
  readonly member: Member;
  readonly file: string;
  readonly patroni: string;
}): Promise<void> {
  const { member, file, patroni } = options;
  const settings = await readFile(file, "utf8");
  const delayed = settings.replace(
    /^postgresql:$/m,
    `postgresql:\n  recovery_conf: { recovery_min_apply_delay: ${lateMs}ms }`,
  );
  await writeFile(file, delayed);
  const answer = await fetch(`http://127.0.0.1:${member.patroniPort}/reload`, {
    method: "POST",
    headers: { authorization: `Basic ${Buffer.from(`patroni:${patroni}`).toString("base64")}` },
    body: "{}",
  });
  if (!answer.ok) throw new Error(`${member.name}'s Patroni answered ${answer.status}: ${await answer.text()}`);
  const deadline = performance.now() + withinMs;
  const isLate = `current_setting('recovery_min_apply_delay') = '${lateMs / 1_000}s'`;
  while (!(await isSo(member.server, isLate))) {
    if (performance.now() > deadline) throw new Error(`${member.name} is not late after ${withinMs} ms.`);
    await sleep(50);
  }
}

async function isSo(server: ShardConnection, expression: string): Promise<boolean> {
  const [row] = await server.query<{ is_so: boolean }>(undefined, `select ${expression} as is_so`, []);
  return row?.is_so === true;
}
