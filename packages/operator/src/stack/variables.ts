/** Variables by which the launcher gives its processes what the topology names but does not hold: addresses and secrets. */

/** Name of the variable that holds the address of a shard. */
export const shardVariable = (index: number) => `RUNGS_SHARD_${index}_URL`;
/** Name of the variable that holds the address of a server that serves a shard's reads. */
export const followerVariable = (shard: number, index: number) => `RUNGS_SHARD_${shard}_FOLLOWER_${index + 1}_URL`;
/** Name of the variable that the preset of rung 2 names for sessions. */
export const redisVariable = "REDIS_URL";
/** Name of the variable that holds the address of the sessions' Redis in the process's own region. */
export const redisReplicaVariable = "REDIS_REPLICA_URL";
/** Name of the variable that the preset of rung 3 names for the shared cache. */
export const cacheVariable = "CACHE_URL";
/** Name of the variable that the preset of rung 5 names for the message broker. */
export const brokerVariable = "QUEUE_URL";
/** Name of the variable that holds the secret of purges at a Varnish started here. */
export const purgeVariable = "RUNGS_PURGE_SECRET";
/** Its file among the stack's secrets. */
export const purgeSecretFile = "purge-secret";
