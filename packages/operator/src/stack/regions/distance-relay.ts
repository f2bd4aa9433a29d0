/**
 * A distance between programs of one machine: a TCP relay that hands everything on later, each way by half the round trip.
 *
 * - *order, half-close, reset*: what one side does, the other side sees, in the same order, that much later.
 * - *a new connection* costs a round trip before its first bytes, as the handshake of TCP does.
 * - *back-pressure*: each way holds `bytesMax` at most; beyond that its sender waits. That bounds a connection's rate, as a window does.
 */
import { connect, createServer, type Server, type Socket } from "node:net";

/** One way through the relay, by port of loopback. */
export interface DistanceRoute {
  /** E.g. "eu-postgres-0". */
  readonly name: string;
  /** Where it listens; 0: any free one. */
  readonly port: number;
  /** The port it leads to; undefined: what comes is sent back, to measure the distance. */
  readonly to: number | undefined;
}

/** A relay that listens. */
export interface DistanceRelay {
  /** Where each route listens, in the order of the routes. */
  readonly ports: readonly number[];
  /** Ends every connection at once. */
  stop(): Promise<void>;
}

const host = "127.0.0.1";
/** On its way in one direction of one connection: 100 MB a second at a round trip of 80 ms. */
const bytesMaxDefault = 4 * 1024 * 1024;

/** Listens on every route's port. `roundTripMs`: 0 or more. Raises what the operating system does when a port is taken. */
export async function startDistanceRelay(options: {
  readonly routes: readonly DistanceRoute[];
  readonly roundTripMs: number;
  readonly bytesMax?: number;
}): Promise<DistanceRelay> {
  const { routes, roundTripMs, bytesMax = bytesMaxDefault } = options;
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    // Its close, which follows, is what counts.
    socket.on("error", () => {});
    socket.once("close", () => sockets.delete(socket));
    return socket;
  };
  const delayMs = roundTripMs / 2;
  const servers: Server[] = [];
  const stop = async () => {
    for (const socket of sockets) socket.destroy();
    await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  };
  const ports: number[] = [];
  try {
    for (const { port, to } of routes) {
      const server = createServer({ allowHalfOpen: true }, (near) => {
        keep(near);
        const handshakenAt = performance.now() + roundTripMs;
        if (to === undefined)
          return lane(near, near, { delayMs: roundTripMs, notBefore: handshakenAt + roundTripMs, bytesMax });
        const far = keep(connect({ port: to, host, allowHalfOpen: true }));
        lane(near, far, { delayMs, notBefore: handshakenAt + delayMs, bytesMax });
        lane(far, near, { delayMs, notBefore: handshakenAt, bytesMax });
      });
      servers.push(server);
      await new Promise<void>((resolve, reject) => {
        server.once("error", reject);
        server.listen({ port, host, exclusive: true }, resolve);
      });
      ports.push((server.address() as { port: number }).port);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { ports, stop };
}

interface Underway {
  readonly dueAt: number;
  readonly what: Buffer | "end" | "reset";
}

/** One direction of one connection. */
function lane(
  from: Socket,
  to: Socket,
  { delayMs, notBefore, bytesMax }: { readonly delayMs: number; readonly notBefore: number; readonly bytesMax: number },
): void {
  const queue: Underway[] = [];
  let bytes = 0;
  let timer: NodeJS.Timeout | undefined;
  let isBlocked = false;
  let hasEnded = false;
  const put = (what: Underway["what"]) => {
    if (to.destroyed) return;
    queue.push({ dueAt: Math.max(performance.now() + delayMs, notBefore), what });
    if (typeof what !== "string") {
      bytes += what.length;
      if (bytes >= bytesMax) from.pause();
    }
    if (timer === undefined && !isBlocked) wake();
  };
  const wake = () => {
    const [first] = queue;
    if (first !== undefined) timer = setTimeout(release, Math.max(0, first.dueAt - performance.now()));
  };
  const release = () => {
    timer = undefined;
    while (!isBlocked && queue[0] !== undefined && queue[0].dueAt <= performance.now() + 0.2) {
      const { what } = queue.shift() as Underway;
      if (what === "end") to.end();
      else if (what === "reset") to.resetAndDestroy();
      else {
        bytes -= what.length;
        isBlocked = !to.write(what);
        if (bytes < bytesMax / 2 && from.isPaused()) from.resume();
      }
    }
    if (!isBlocked) wake();
  };
  from.on("data", put);
  from.once("end", () => {
    hasEnded = true;
    put("end");
  });
  from.once("close", () => {
    if (!hasEnded) put("reset");
  });
  to.on("drain", () => {
    isBlocked = false;
    if (timer === undefined) wake();
  });
  to.once("close", () => {
    clearTimeout(timer);
    queue.length = 0;
    bytes = 0;
    // What still comes has nobody to go to; its sender hears of it by the other direction.
    from.resume();
  });
}
