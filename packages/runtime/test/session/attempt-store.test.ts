import { attemptStoreContract } from "@rungs/contract/attempt-store-contract";
import { startTestCluster, startTestRedis } from "@rungs/contract/test-redis";
import { openRedis } from "../../src/redis/redis.ts";
import { localAttemptStore } from "../../src/session/drivers/local-attempt-store.ts";
import { redisAttemptStore } from "../../src/session/drivers/redis-attempt-store.ts";

attemptStoreContract({
  name: "in the process's memory",
  async makeStores() {
    const store = localAttemptStore();
    return { stores: [store, store], close: async () => {} };
  },
});

const overRedis = (name: string, start: () => Promise<{ readonly url: string; stop(): Promise<void> }>) =>
  attemptStoreContract({
    name,
    async makeStores() {
      const server = await start();
      const [here, there] = await Promise.all([openRedis({ url: server.url }), openRedis({ url: server.url })]);
      return {
        stores: [redisAttemptStore({ redis: here }), redisAttemptStore({ redis: there })],
        async close() {
          await Promise.all([here.close(), there.close()]);
          await server.stop();
        },
      };
    },
  });

overRedis("Redis, two processes", startTestRedis);
overRedis("Redis Cluster, two processes", startTestCluster);
