/** A client of server-sent events for tests: reads a stream as the specification says (WHATWG HTML, 9.2.6), and shows all of it. */
import { type IncomingMessage, request } from "node:http";

export interface ReceivedEvent {
  readonly event: string;
  /** As text; see {@link EventStreamClient.data}. */
  readonly data: string;
  /** The position of the stream when the event came. */
  readonly id: string;
}

export interface EventStreamClient {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly events: readonly ReceivedEvent[];
  /** Data of the events of that name, parsed. */
  data(event: string): unknown[];
  /** Comments so far, e.g. heartbeats. */
  comments(): number;
  lastEventId(): string;
  retryMs(): number | undefined;
  /** All text so far; the body of an answer that is no stream. */
  text(): string;
  /** Resolves when the server has ended or cut the connection. */
  readonly ended: Promise<"ended" | "cut">;
  /** Stops reading, so that the connection fills up. */
  pause(): void;
  resume(): void;
  /** Goes away. */
  close(): void;
}

/** Connects; resolves when the answer's headers are there. */
export async function openEventStream(
  url: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<EventStreamClient> {
  const sent = request(url, { headers: { accept: "text/event-stream", ...headers }, agent: false });
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    sent.once("response", resolve).once("error", reject).end();
  });
  sent.on("error", () => {});
  const events: ReceivedEvent[] = [];
  let all = "";
  let rest = "";
  let comments = 0;
  let retryMs: number | undefined;
  let lastEventId = "";
  let event = "";
  let data: string[] = [];

  const dispatch = () => {
    if (data.length > 0) events.push({ event: event || "message", data: data.join("\n"), id: lastEventId });
    event = "";
    data = [];
  };
  const take = (line: string) => {
    if (line === "") return dispatch();
    if (line.startsWith(":")) {
      comments++;
      return;
    }
    const [, field, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "event") event = value;
    else if (field === "data") data.push(value);
    else if (field === "id") lastEventId = value;
    else if (field === "retry") retryMs = Number(value);
  };
  response.setEncoding("utf8").on("data", (text: string) => {
    all += text;
    const lines = (rest + text).split(/\r\n|\n|\r/);
    rest = lines.pop() ?? "";
    for (const line of lines) take(line);
  });
  const ended = new Promise<"ended" | "cut">((resolve) => {
    response.once("close", () => resolve(response.complete ? "ended" : "cut")).on("error", () => {});
  });
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    events,
    data: (name) => events.filter((each) => each.event === name).map((each) => JSON.parse(each.data)),
    comments: () => comments,
    lastEventId: () => lastEventId,
    retryMs: () => retryMs,
    text: () => all,
    ended,
    pause: () => response.pause(),
    resume: () => response.resume(),
    close: () => sent.destroy(),
  };
}
