/** Calls of an app: which methods this process answers, where those of other groups are, and what `/metrics` shows of both. */
import type { FastifyInstance } from "fastify";
import { scopeCalls, serveCalls } from "../../call/drivers/fastify-calls.ts";
import {
  type Call,
  type CallKey,
  CallStats,
  type CallTarget,
  callSigner,
  callVerifier,
  createCalls,
  createCallTarget,
  createServedMethods,
  storedCallKeys,
} from "../../call/index.ts";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { ConfigError } from "../../kernel/errors.ts";
import type { Lifecycle } from "../../kernel/lifecycle.ts";
import type { Logger } from "../../kernel/log.ts";
import { type Random, systemRandom } from "../../kernel/random.ts";
import type { Metrics } from "../../monitor/index.ts";
import type { SqlDatabase } from "../../session/drivers/database-session-store.ts";
import { readSigningKeys } from "../../session/drivers/database-signing-key.ts";
import { groupOfService, groupsOf, processWork, type Topology } from "../../topology/index.ts";
import { type JoinedMarks, joinedReads } from "../reads/joined-reads.ts";
import type { AppDefinition, ServiceContext } from "../service.ts";
import { showCalls, showRefusals } from "../show/calls.ts";

/** The calls of a process. */
export interface OpenCalls {
  readonly call: Call;
  /** Answers calls of other processes, on the web server. To be called once, after `limitRequests` and before the services' routes. */
  serve(fastify: FastifyInstance): void;
}

export interface OpenCallsOptions<T> {
  readonly definition: AppDefinition<T>;
  readonly topology: Topology;
  /** What methods are given beside the input; asked for when the first one is called. */
  readonly context: () => ServiceContext<T>;
  /** The home database's leader, which has the keys. */
  readonly home: SqlDatabase;
  /** Whether any shard has followers. */
  readonly hasFollowers: boolean;
  /** Those that sessions are told of, too. */
  readonly marks: JoinedMarks | undefined;
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly lifecycle: Lifecycle;
  readonly clock?: Clock;
  readonly random?: Random;
}

/**
 * Opens the calls; an app without methods has none of it. Raises `CONFIG_INVALID` for a method that is not its service's, and for a group
 * whose methods others could call if it had an address.
 */
export async function openCalls<T>(options: OpenCallsOptions<T>): Promise<OpenCalls> {
  const { definition, topology, context, home, metrics, log, lifecycle } = options;
  const { clock = systemClock, random = systemRandom } = options;
  const methods = methodsOf(definition);
  const reads = joinedReads({ ...options, limitMs: topology.web.requestTimeoutMs });
  const names = definition.services.map(({ name }) => name);
  const work = processWork(topology, names);
  const isHere = (service: string) => work.routes.includes(service) || work.handlers.includes(service);
  const [outgoing, incoming] = [new CallStats(), new CallStats()];
  const here = methods.filter(({ method }) => isHere(method.service));
  const served = createServedMethods({ methods: here, reads, clock, log, stats: incoming });
  const caller = topology.group ?? definition.name.replace(/[^\w.-]/g, "-").slice(0, 64);
  const elsewhere = [...new Set(methods.map(({ method }) => method.service))].filter((service) => !isHere(service));
  const hasCalls = methods.length > 0;
  // Where there are no groups nobody else has anything to call: then there is no way in, either.
  const isSplit = hasCalls && (topology.group !== undefined || topology.services !== undefined);
  const keys = isSplit
    ? await storedCallKeys({ read: () => readCallKeys(home), clock, log })
    : { newest: noKey, find: async () => undefined };
  const sign = callSigner({ keys, caller, clock });
  const targets = await openTargets({ elsewhere, topology, names, sign, clock, random, lifecycle });
  const call = createCalls({ served, context, targets, caller, stats: outgoing, reads, clock, random });
  if (hasCalls) showCalls(metrics, { outgoing, incoming, targets: [...new Set(targets.values())] });

  return {
    call,
    serve(fastify) {
      if (!hasCalls) return;
      scopeCalls(fastify, { requestTimeoutMs: topology.web.requestTimeoutMs, clock });
      if (!isSplit) return;
      const verify = callVerifier({ keys, clock });
      showRefusals(metrics, serveCalls(fastify, { served, context: context(), verify, log, clock }));
    },
  };
}

function methodsOf<T>({ services }: AppDefinition<T>) {
  return services.flatMap(({ name, methods = [] }) => {
    const foreign = methods.find(({ method }) => method.service !== name);
    if (foreign === undefined) return methods;
    throw new ConfigError(
      "CONFIG_INVALID",
      `The service ${name} serves ${foreign.method.name}, whose name says another service. Call it ${name}.something, or move it there.`,
    );
  });
}

async function readCallKeys(database: SqlDatabase): Promise<CallKey[]> {
  const keys = await readSigningKeys({ database, name: "calls" });
  return keys.map(({ name: id, secret }) => ({ id, secret }));
}

function noKey(): never {
  throw new Error("Nothing is signed in an app without groups.");
}

/** A way to each group that serves some of these services. The client is loaded where there is one to call. */
async function openTargets(options: {
  readonly elsewhere: readonly string[];
  readonly topology: Topology;
  readonly names: readonly string[];
  readonly sign: ReturnType<typeof callSigner>;
  readonly clock: Clock;
  readonly random: Random;
  readonly lifecycle: Lifecycle;
}): Promise<ReadonlyMap<string, CallTarget>> {
  const { elsewhere, topology, names, sign, clock, random, lifecycle } = options;
  const targets = new Map<string, CallTarget>();
  if (elsewhere.length === 0) return targets;
  const { httpCalls } = await import("../../call/drivers/http-calls.ts");
  const byGroup = new Map<string, CallTarget>();
  const groups = groupsOf(topology, names);
  for (const service of elsewhere) {
    const { name, url } = groupOfService(groups, service) ?? { name: service, url: undefined };
    if (url === undefined) {
      throw new ConfigError(
        "CONFIG_INVALID",
        `services.${name}.url is not set, and the methods of ${service} are called there. Set it to the group's address inside your network, or start the app by rungs up.`,
      );
    }
    const target = byGroup.get(name) ?? createCallTarget({ name, drivers: [httpCalls({ url, sign })], clock, random });
    if (!byGroup.has(name)) lifecycle.started(`calls to ${name}`, () => target.close());
    byGroup.set(name, target);
    targets.set(service, target);
  }
  return targets;
}
