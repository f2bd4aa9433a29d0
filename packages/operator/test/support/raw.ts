/** Bytes to a port, for requests that no client would send. */
import { connect } from "node:net";

export interface RawAnswer {
  /** Everything that came back. */
  readonly text: string;
  /** Status of each answer, in order. */
  readonly statuses: readonly number[];
  /** When the server closed, in ms after the start; undefined when it had not within the time. */
  readonly closedMs: number | undefined;
}

/**
 * Sends `bytes`, then one of `drip` every `everyMs`, and reads until the server closes or `withinMs` has passed.
 */
export function sendRaw(
  port: number,
  bytes: string,
  options: { readonly withinMs?: number; readonly drip?: string; readonly everyMs?: number } = {},
): Promise<RawAnswer> {
  const { withinMs = 1_500, drip, everyMs = 500 } = options;
  return new Promise((resolve) => {
    const since = performance.now();
    let text = "";
    const socket = connect({ port, host: "127.0.0.1" });
    const dripping = drip === undefined ? undefined : setInterval(() => socket.write(drip), everyMs);
    const end = (closedMs: number | undefined) => {
      clearTimeout(timer);
      clearInterval(dripping);
      socket.destroy();
      const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
      resolve({ text, statuses, closedMs });
    };
    const timer = setTimeout(() => end(undefined), withinMs);
    socket.setEncoding("latin1").on("data", (part) => {
      text += part;
    });
    socket.on("error", () => {});
    socket.on("close", () => end(performance.now() - since));
    socket.write(bytes);
  });
}
