/** Beside the RealWorld API: tips between users, and what the site owes a user. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import { readIdempotencyKey } from "rungs/idempotency";
import type { NewTip, Tip, TipPageRequest, Tips } from "../domain/model.ts";
import { integerOf, textOf, wrapped } from "./request.ts";

export function tipRoutes(
  api: FastifyInstance,
  options: {
    readonly tips: Tips;
    /** The signed-in viewer, or a 401 problem. */
    required(request: FastifyRequest): Promise<{ readonly userId: string }>;
  },
): void {
  const { tips, required } = options;

  api.post<{ Params: { username: string } }>("/profiles/:username/tips", async (request, reply) => {
    const { userId } = await required(request);
    const key = readIdempotencyKey(request.headers["idempotency-key"]);
    const input = wrapped(request.body, "tip") as unknown as NewTip;
    const { tip, replayed } = await tips.give(userId, request.params.username, input, key);
    const answer = withStatusUrl(tip);
    if (replayed) reply.header("idempotency-replayed", "true");
    return reply
      .code(202)
      .header("location", answer.statusUrl)
      .header("cache-control", "private, no-store")
      .send({ tip: answer });
  });

  api.get<{ Params: { id: string } }>("/tips/:id", async (request, reply) => {
    const { userId } = await required(request);
    const tip = await tips.byId(userId, request.params.id);
    reply.header("cache-control", "private, no-store");
    return { tip: withStatusUrl(tip) };
  });

  api.get("/tips", async (request, reply) => {
    const { userId } = await required(request);
    const list = await tips.given(userId, pageOf(request.query));
    reply.header("cache-control", "private, no-store");
    return { tips: list.map(withStatusUrl) };
  });

  api.get("/tips/received", async (request, reply) => {
    const { userId } = await required(request);
    const list = await tips.received(userId, pageOf(request.query));
    reply.header("cache-control", "private, no-store");
    return { tips: list };
  });

  api.get("/balance", async (request, reply) => {
    const { userId } = await required(request);
    const balances = await tips.balance(userId);
    reply.header("cache-control", "private, no-store");
    return { balances };
  });
}

function withStatusUrl(tip: Tip): Tip & { readonly statusUrl: string } {
  return { ...tip, statusUrl: `/api/tips/${tip.id}` };
}

/** What is no number is left for the check to refuse. */
function pageOf(query: unknown): TipPageRequest {
  return { limit: integerOf(query, "limit") as number | undefined, before: textOf(query, "before") };
}
