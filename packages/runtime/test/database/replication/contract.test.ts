/** The database's contract over shards with followers: nothing that works on one server may work differently. */
import { databaseContract } from "@rungs/contract/database-contract";
import { afterAll, beforeAll } from "vitest";
import { openPostgres } from "../../../src/database/drivers/postgres.ts";
import { replicatedShard } from "../../../src/database/index.ts";
import { systemClock } from "../../../src/kernel/clock.ts";
import { seededRandom } from "../../../src/kernel/random.ts";
import { type ReplicaServer, startTestReplicas, type TestReplicas } from "./support.ts";

let set: TestReplicas;
let databases = 0;
beforeAll(async () => {
  set = await startTestReplicas({ followers: 1 });
});
afterAll(() => set.stop());

databaseContract({
  name: "a leader and a follower",
  shards: 2,
  open: () =>
    Promise.all(
      [0, 1].map(async (shard) => {
        const database = `contract_${++databases}`;
        await set.leader.query(`create database ${database} template template0`);
        await set.followers[0]?.caughtUpWith(set.leader);
        const open = (server: ReplicaServer, leader?: object) =>
          openPostgres({
            name: `shard ${shard}${leader === undefined ? " follower" : ""}`,
            address: { host: server.host, port: server.port, user: server.user, database },
            pool: leader === undefined ? {} : { leader },
          });
        return replicatedShard({
          shard,
          leader: open(set.leader, {}),
          followers: set.followers.map((server) => open(server)),
          clock: systemClock,
          random: seededRandom(1),
        });
      }),
    ),
});
