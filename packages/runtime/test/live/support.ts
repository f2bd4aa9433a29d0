/** A web server with live streams, and a record that resumes them. */
import { openEventStream } from "@rungs/contract/event-stream-client";
import { pino } from "pino";
import { serveLive } from "../../src/live/drivers/fastify-live.ts";
import { localFanOut } from "../../src/live/drivers/local-fan-out.ts";
import {
  createLive,
  type LiveMessage,
  type LiveOptions,
  type OpenOptions,
  type RunningLive,
  type TopicRecord,
} from "../../src/live/index.ts";
import { createWebServer } from "../../src/web/drivers/fastify-web.ts";

export interface LiveServer {
  readonly url: string;
  readonly live: RunningLive;
  /** Requests the web server's metrics were told of. */
  readonly observed: string[];
  connect(path?: string, headers?: Readonly<Record<string, string>>): ReturnType<typeof openEventStream>;
  /** As an app stops: streams first, then the web server. */
  stop(): Promise<void>;
}

/** Serves `/live?owner=NAME`: the streams of topic "a" unless `stream` says otherwise. The caller ticks. */
export async function startLiveServer(
  options: Partial<LiveOptions> = {},
  stream: (owner: string) => Partial<OpenOptions> = () => ({}),
): Promise<LiveServer> {
  const live = createLive({ fanOut: localFanOut(), tickMs: 0, ...options });
  const observed: string[] = [];
  const web = createWebServer({
    host: "127.0.0.1",
    port: 0,
    bodyLimitBytes: 1_000,
    requestTimeoutMs: 1_000,
    log: pino({ level: "silent" }),
    metrics: {
      observeRequest: ({ route }) => void observed.push(route),
      expose: async () => ({ contentType: "text/plain", text: "" }),
    },
  });
  web.fastify.get<{ Querystring: { owner?: string } }>("/live", async (request, reply) => {
    const { owner = "someone" } = request.query;
    return serveLive(request, reply, { live, topics: ["a"], owner, ...stream(owner) });
  });
  const url = await web.listen();
  return {
    url,
    live,
    observed,
    connect: (path = "/live", headers = {}) => openEventStream(url + path, headers),
    async stop() {
      await live.drain();
      await web.close();
    },
  };
}

/** A record in memory. `commit` numbers a message and makes it readable; sending it is another matter. */
export function memoryRecord(topic: string, { missedMax = 100 } = {}) {
  const messages: LiveMessage[] = [];
  let reads = 0;
  const record: TopicRecord = {
    topic,
    newest: async () => String(messages.length),
    async after(position) {
      reads++;
      const from = Number(position);
      await new Promise((resolve) => setImmediate(resolve));
      if (from > messages.length || messages.length - from > missedMax) return "gap";
      return messages.slice(from);
    },
  };
  return {
    record,
    reads: () => reads,
    commit(data: unknown): LiveMessage {
      const message = { event: "told", data, id: String(messages.length + 1) };
      messages.push(message);
      return message;
    },
  };
}

/** A clock moved by hand. */
export function handClock() {
  let ms = 1_000;
  return {
    now: () => ms,
    monotonic: () => ms,
    pass(duration: number) {
      ms += duration;
    },
  };
}
