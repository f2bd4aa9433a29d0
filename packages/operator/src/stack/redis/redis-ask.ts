/** A few commands to a Redis or a Sentinel of this machine, on a connection of its own (RESP 2). */
import { connect } from "node:net";

/** Which server, and how it lets one in. */
export interface RedisLogin {
  /** On 127.0.0.1. */
  readonly port: number;
  readonly password: string;
}

/** What a command is answered. */
export type RedisReply = string | number | null | readonly RedisReply[];

const answerBytesMax = 4 * 1024 * 1024;

/** Sends the commands one after the other; gives their answers. Raises the first error among them, and when the connection breaks. */
export async function askRedis(
  { port, password }: RedisLogin,
  commands: readonly (readonly string[])[],
  signal: AbortSignal,
): Promise<RedisReply[]> {
  const all = [["AUTH", password], ...commands];
  const [, ...replies] = await new Promise<RedisReply[]>((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", signal, noDelay: true });
    let text = "";
    // One byte is one character, so that lengths in bytes hold.
    socket.setEncoding("latin1").on("data", (part: unknown) => {
      text += String(part);
      try {
        const found = repliesIn(text, all.length);
        if (found !== undefined) {
          resolve(found);
          socket.destroy();
        } else if (text.length > answerBytesMax) throw new Error(`Redis on port ${port} answered too much.`);
      } catch (error) {
        socket.destroy(error as Error);
      }
    });
    socket.once("error", reject);
    socket.once("close", () => reject(new Error(`Redis on port ${port} closed the connection.`)));
    socket.write(all.map(encoded).join(""));
  });
  return replies;
}

/** An answer of names and values by turns, as Sentinels give them. */
export function fieldsOf(reply: RedisReply | undefined): Readonly<Record<string, string>> {
  if (!Array.isArray(reply)) return {};
  const texts = reply.map(String);
  return Object.fromEntries(
    texts.flatMap((name, index) => (index % 2 === 0 ? [[name, texts[index + 1] ?? ""] as const] : [])),
  );
}

/** An answer of lines such as "role:master", as INFO gives it. */
export function infoOf(reply: RedisReply | undefined): Readonly<Record<string, string>> {
  const lines = String(reply ?? "").split("\r\n");
  return Object.fromEntries(
    lines.flatMap((line) => {
      const at = line.indexOf(":");
      return at > 0 && !line.startsWith("#") ? [[line.slice(0, at), line.slice(at + 1)] as const] : [];
    }),
  );
}

function encoded(command: readonly string[]): string {
  return `*${command.length}\r\n${command.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`;
}

/** So many replies; undefined while some of them are still on their way. Raises an error that is one of them. */
function repliesIn(text: string, count: number): RedisReply[] | undefined {
  const replies: RedisReply[] = [];
  let at = 0;
  while (replies.length < count) {
    const found = replyAt(text, at);
    if (found === undefined) return undefined;
    replies.push(found.reply);
    at = found.end;
  }
  return replies;
}

function replyAt(text: string, at: number): { readonly reply: RedisReply; readonly end: number } | undefined {
  const lineEnd = text.indexOf("\r\n", at);
  if (lineEnd === -1) return undefined;
  const rest = text.slice(at + 1, lineEnd);
  const after = lineEnd + 2;
  const kind = text[at];
  if (kind === "-") throw new Error(rest);
  if (kind === "+") return { reply: rest, end: after };
  const number = Number(rest);
  if (kind === ":") return { reply: number, end: after };
  if (number === -1) return { reply: null, end: after };
  if (kind === "$") {
    if (text.length < after + number + 2) return undefined;
    return { reply: text.slice(after, after + number), end: after + number + 2 };
  }
  const items: RedisReply[] = [];
  let end = after;
  while (items.length < number) {
    const item = replyAt(text, end);
    if (item === undefined) return undefined;
    items.push(item.reply);
    end = item.end;
  }
  return { reply: items, end };
}
