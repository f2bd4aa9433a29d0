/** Whether a name server answers for a zone: one question for its SOA by UDP. */
import { createSocket } from "node:dgram";

const soaType = 6;
const internetClass = 1;

/** Resolves when the server says that it has authority; raises on any other answer, and when the signal ends the wait. */
export function askName({
  host,
  port,
  name,
  signal,
}: {
  readonly host: string;
  readonly port: number;
  readonly name: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const id = Math.floor(Math.random() * 0x1_0000);
  return new Promise((resolve, reject) => {
    const socket = createSocket({ type: "udp4", signal });
    const end = (error?: Error) => {
      socket.close();
      if (error === undefined) resolve();
      else reject(error);
    };
    // An aborted socket closes by itself.
    socket.once("close", () => reject(new Error(`No answer from ${host}:${port}.`)));
    socket.once("error", (error) => end(error));
    socket.once("message", (answer) => {
      const flags = answer.length < 12 || answer.readUInt16BE(0) !== id ? 0 : answer.readUInt16BE(2);
      const hasAuthority = (flags & 0x8400) === 0x8400 && (flags & 0xf) === 0 && answer.readUInt16BE(6) > 0;
      end(hasAuthority ? undefined : new Error(`${host}:${port} does not answer for ${name}.`));
    });
    // Connected, so that a closed port is told at once.
    socket.connect(port, host, () => socket.send(question(id, name)));
  });
}

/** RFC 1035, 4.1: header, name in labels, type, class. */
function question(id: number, name: string): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(1, 4);
  const labels = name
    .split(".")
    .map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label, "ascii")]));
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, soaType, 0, internetClass])]);
}
