/** Signs in to a Kafka as a client does and asks who its brokers are (Kafka's protocol guide: requests 17, 36 and 3). */
import { connect } from "node:net";

const requests = {
  metadata: { key: 3, version: 1 },
  handshake: { key: 17, version: 1 },
  login: { key: 36, version: 0 },
};

/** Resolves when the login was taken and a broker is there; raises when not, or nobody answers. */
export function probeKafka(options: {
  readonly port: number;
  readonly user: string;
  readonly password: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const { port, user, password, signal } = options;
  const steps = [
    { ...requests.handshake, body: text("PLAIN"), isFine: (answer: Buffer) => answer.readInt16BE(4) === 0 },
    {
      ...requests.login,
      body: bytes(`\0${user}\0${password}`),
      isFine: (answer: Buffer) => answer.readInt16BE(4) === 0,
    },
    // Of no topic; the answer begins with the list of brokers.
    { ...requests.metadata, body: int32(0), isFine: (answer: Buffer) => answer.readInt32BE(4) > 0 },
  ];
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", signal });
    let received = Buffer.alloc(0);
    let step = 0;
    const send = () => {
      const current = steps[step];
      if (current === undefined) {
        resolve();
        socket.destroy();
      } else socket.write(requestOf(current.key, current.version, step, current.body));
    };
    socket.on("connect", send);
    socket.on("data", (piece) => {
      received = Buffer.concat([received, piece]);
      if (received.length < 4 || received.length < 4 + received.readInt32BE(0)) return;
      const answer = received.subarray(4);
      received = Buffer.alloc(0);
      if (answer.length < 8 && step === 2) return void socket.destroy(new Error("Kafka's answer was too short."));
      if (steps[step]?.isFine(answer) !== true)
        return void socket.destroy(new Error("Kafka is not ready or refused the login."));
      step++;
      send();
    });
    socket.on("error", reject);
    socket.on("close", () => reject(new Error("Kafka closed the connection.")));
  });
}

/** A frame: its length, a header of version 1, the body. */
function requestOf(key: number, version: number, correlation: number, body: Buffer): Buffer {
  const content = Buffer.concat([int16(key), int16(version), int32(correlation), text("rungs up"), body]);
  return Buffer.concat([int32(content.length), content]);
}

function text(value: string): Buffer {
  const content = Buffer.from(value);
  return Buffer.concat([int16(content.length), content]);
}

function bytes(value: string): Buffer {
  const content = Buffer.from(value);
  return Buffer.concat([int32(content.length), content]);
}

function int16(value: number): Buffer {
  const content = Buffer.alloc(2);
  content.writeInt16BE(value);
  return content;
}

function int32(value: number): Buffer {
  const content = Buffer.alloc(4);
  content.writeInt32BE(value);
  return content;
}
