/** Logs in to a RabbitMQ as a client does, as far as that shows that it takes the login (AMQP 0-9-1, sections 2.2.4 and 4.2). */
import { connect } from "node:net";

const header = Buffer.from([0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1]);
const methodFrame = 1;
const frameEnd = 0xce;
/** Class and method numbers of "connection.*". */
const methods = { start: 0x000a_000a, startOk: 0x000a_000b, tune: 0x000a_001e, close: 0x000a_0032 };

/** Resolves when the login was taken; raises when it was not, or nobody answers. */
export function probeRabbitmq(options: {
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { port, user, password, signal } = options;
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", signal });
    let received = Buffer.alloc(0);
    socket.on("data", (bytes) => {
      received = Buffer.concat([received, bytes]);
      for (let method = takeMethod(); method !== undefined; method = takeMethod()) {
        if (method === methods.start) socket.write(startOk(user, password));
        else if (method === methods.tune) {
          resolve();
          socket.destroy();
        } else
          socket.destroy(new Error(method === methods.close ? "RabbitMQ refused the login." : "unexpected answer"));
      }
    });
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("RabbitMQ closed the connection.")));
    socket.write(header);

    /** A frame: type, channel, length, that many bytes, an end mark. */
    function takeMethod(): number | undefined {
      if (received.length < 11 || received[0] !== methodFrame) return undefined;
      const bytes = 7 + received.readUInt32BE(3) + 1;
      if (received.length < bytes) return undefined;
      const method = received.readUInt32BE(7);
      received = received.subarray(bytes);
      return method;
    }
  });
}

function startOk(user: string, password: string): Buffer {
  const noProperties = Buffer.alloc(4);
  const payload = Buffer.concat([
    numberOf(methods.startOk),
    noProperties,
    shortText("PLAIN"),
    longText(`\0${user}\0${password}`),
    shortText("en_US"),
  ]);
  return Buffer.concat([Buffer.from([methodFrame, 0, 0]), numberOf(payload.length), payload, Buffer.from([frameEnd])]);
}

function numberOf(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function shortText(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([bytes.length]), bytes]);
}

function longText(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([numberOf(bytes.length), bytes]);
}
