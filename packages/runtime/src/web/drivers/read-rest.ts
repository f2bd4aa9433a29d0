/**
 * Reads the rest of a body that is refused for its length before the refusal goes out. A connection that is closed while the
 * client still sends is reset, and the client, or a proxy that then answers 502, may never see the answer (RFC 9112, 9.6).
 */
import type { IncomingMessage } from "node:http";

const restBytesMax = 8 * 1_048_576;
const restMsMax = 1_000;

/** Resolves once the body has ended, or enough of it was read, or after a second; true when it has ended. Never raises. */
export function readRest(request: IncomingMessage): Promise<boolean> {
  if (request.complete || request.destroyed) return Promise.resolve(request.complete);
  return new Promise((resolve) => {
    let bytes = 0;
    const finish = () => {
      clearTimeout(timer);
      request.off("data", count).off("end", finish).off("close", finish).off("error", finish);
      resolve(request.complete);
    };
    const count = (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes > restBytesMax) finish();
    };
    const timer = setTimeout(finish, restMsMax).unref();
    request.on("data", count).once("end", finish).once("close", finish).once("error", finish);
    request.resume();
  });
}
