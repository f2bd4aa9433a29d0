/** Live streams on Fastify, as server-sent events (WHATWG HTML, 9.2). */
import { Readable } from "node:stream";
import type { FastifyReply, FastifyRequest } from "fastify";
import { UnavailableError } from "../../kernel/errors.ts";
import { type Random, systemRandom } from "../../kernel/random.ts";
import type { Live, OpenOptions } from "../live-streams.ts";

/** What the client listens to, and the tier that serves it. */
export interface ServeLiveOptions extends Omit<OpenOptions, "lastEventId"> {
  readonly live: Live;
  readonly random?: Random;
}

const streamHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-store, no-transform",
  // nginx would hold events back to fill a buffer.
  "x-accel-buffering": "no",
};

/** Bytes the connection takes before the stream's own queue is used. */
const connectionBytes = 16 * 1_024;

/**
 * Answers the request by a stream. The client's position is read from the header `Last-Event-ID`, which browsers send when
 * they reconnect, or else from the parameter `lastEventId` of the address, by which a page says what it has already. Whatever
 * keeps the stream from opening is raised before a header is sent, so the answer is an ordinary error; when too many are open
 * it is 503 with a Retry-After of 5 to 30 s.
 */
export async function serveLive(
  request: FastifyRequest,
  reply: FastifyReply,
  { live, random = systemRandom, ...options }: ServeLiveOptions,
): Promise<FastifyReply> {
  // A request for the headers alone would hold a stream that nobody reads.
  if (request.method === "HEAD") return reply.headers(streamHeaders).send();
  const lastEventId = lastEventIdOf(request);
  let stream: Awaited<ReturnType<Live["open"]>>;
  try {
    stream = await live.open({ ...options, lastEventId });
  } catch (error) {
    if (!(error instanceof UnavailableError) || !isFull(error)) throw error;
    const seconds = 5 + Math.floor(random.next() * 26);
    reply.code(503).headers({ "retry-after": String(seconds), "cache-control": "no-store" });
    return reply.send({ errors: { body: ["too many live streams are open; please try again later"] } });
  }
  const body = new Readable({
    highWaterMark: connectionBytes,
    read: () => stream.writable(),
    destroy(error, done) {
      stream.closed();
      done(error);
    },
  });
  reply.headers(streamHeaders);
  reply.send(body);
  stream.start({
    write: (text) => body.push(text),
    waitingBytes: () => body.readableLength + reply.raw.writableLength,
    end: () => body.push(null),
    cut: () => body.destroy(),
  });
  return reply;
}

function isFull({ code }: UnavailableError): boolean {
  return code === "OVERLOADED" || code === "SHUTTING_DOWN";
}

/** An empty one counts as none; what is no position is passed on, for the stream to answer by `reset`. */
function lastEventIdOf(request: FastifyRequest): string | undefined {
  const { lastEventId } = request.query as { readonly lastEventId?: unknown };
  for (const value of [request.headers["last-event-id"], lastEventId]) {
    if (typeof value === "string" && value !== "") return value.slice(0, 64);
  }
  return undefined;
}
