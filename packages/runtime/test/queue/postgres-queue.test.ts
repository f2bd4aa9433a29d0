/** The queue contract on the job table of real PostgreSQL servers, two shards. */
import { queueContract } from "@rungs/contract/queue-contract";
import { testQueues } from "./queue-under-test.ts";

queueContract({ name: "the job table in PostgreSQL", ...testQueues() });
