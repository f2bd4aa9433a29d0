/** Questions to a name server of a test on loopback, by UDP or TCP, with the subnet of a made-up client (RFC 7871). */
import { createSocket } from "node:dgram";
import { connect } from "node:net";
import { type Answer, decode, encode, type Packet, RECURSION_DESIRED, streamDecode, streamEncode } from "dns-packet";

/** A question. */
export interface DnsQuestion {
  readonly name: string;
  /** Default "A". */
  readonly type?: string;
  /** Default "IN". */
  readonly class?: "IN" | "CH";
  /** The client's network, such as "192.0.2.0/24"; default none is told. */
  readonly subnet?: string;
  /** Default UDP. */
  readonly overTcp?: boolean;
}

/** An answer. */
export interface DnsReply {
  /** E.g. "NOERROR", "REFUSED". */
  readonly code: string;
  readonly answers: readonly { readonly type: string; readonly data: string; readonly ttlSeconds: number }[];
  /** For how much of the network the answer is; null: it does not say. */
  readonly scopePrefixLength: number | null;
  readonly isTruncated: boolean;
  readonly bytes: number;
}

const timeoutMs = 2_000;
const clientSubnetOption = 8;

/** Asks, and raises when nothing comes within two seconds. */
export async function askDns(port: number, question: DnsQuestion): Promise<DnsReply> {
  const packet = packetOf(question);
  const isTcp = question.overTcp === true;
  const bytes = isTcp ? await overTcp(port, streamEncode(packet)) : await exchangeUdp(port, encode(packet));
  if (bytes === undefined) throw new Error(`No answer about ${question.name} within ${timeoutMs} ms.`);
  const reply = (isTcp ? streamDecode(bytes) : decode(bytes)) as Packet & { rcode: string; flag_tc: boolean };
  return {
    code: reply.rcode,
    answers: (reply.answers ?? []).map((answer) => ({
      type: answer.type,
      data: textOf("data" in answer ? answer.data : ""),
      ttlSeconds: "ttl" in answer ? (answer.ttl ?? 0) : 0,
    })),
    scopePrefixLength: scopeOf(reply.additionals ?? []),
    isTruncated: reply.flag_tc,
    bytes: bytes.length,
  };
}

/** Sends bytes by UDP and gives what comes back; undefined when nothing does. */
export function exchangeUdp(port: number, bytes: Uint8Array, withinMs = timeoutMs): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const socket = createSocket("udp4");
    const timer = setTimeout(() => end(undefined), withinMs);
    const end = (answer: Buffer | undefined, error?: Error) => {
      clearTimeout(timer);
      socket.close();
      if (error === undefined) resolve(answer);
      else reject(error);
    };
    socket.once("error", (error) => end(undefined, error));
    socket.once("message", (answer) => end(answer));
    socket.connect(port, "127.0.0.1", () => socket.send(bytes));
  });
}

function packetOf({ name, type = "A", class: of = "IN", subnet }: DnsQuestion): Packet {
  const [ip = "", length] = (subnet ?? "").split("/");
  const told = {
    code: "CLIENT_SUBNET",
    family: ip.includes(":") ? 2 : 1,
    sourcePrefixLength: Number(length),
    scopePrefixLength: 0,
    ip,
  };
  return {
    type: "query",
    id: Math.floor(Math.random() * 0x1_0000),
    flags: RECURSION_DESIRED,
    questions: [{ name, type: type as "A", class: of }],
    additionals: [
      {
        type: "OPT",
        name: ".",
        udpPayloadSize: 1_232,
        extendedRcode: 0,
        ednsVersion: 0,
        flags: 0,
        options: subnet === undefined ? [] : [told],
      },
    ] as unknown as Answer[],
  };
}

function textOf(data: unknown): string {
  if (Array.isArray(data)) return data.map(String).join("");
  return typeof data === "object" ? JSON.stringify(data) : String(data);
}

/** The client's own decoder leaves the option as bytes: family (2), source length, scope length, address. */
function scopeOf(additionals: readonly Answer[]): number | null {
  for (const additional of additionals) {
    if (additional.type !== "OPT") continue;
    const options = (
      additional as unknown as {
        options: readonly { code: number | string; data?: Buffer; scopePrefixLength?: number }[];
      }
    ).options;
    const found = options.find(({ code }) => code === clientSubnetOption);
    if (found !== undefined) return found.scopePrefixLength ?? found.data?.readUInt8(3) ?? null;
  }
  return null;
}

function overTcp(port: number, bytes: Buffer): Promise<Buffer | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1" });
    let received = Buffer.alloc(0);
    const end = (answer: Buffer | undefined) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(timeoutMs, () => end(undefined));
    socket.once("error", reject);
    socket.once("close", () => end(undefined));
    socket.on("data", (more) => {
      received = Buffer.concat([received, more]);
      if (received.length >= 2 && received.length >= received.readUInt16BE(0) + 2) end(received);
    });
    socket.write(bytes);
  });
}
