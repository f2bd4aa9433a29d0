/** A way to a real server that can be cut, silenced, slowed and opened again: what a network does to a server. */
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import type { TestPostgres } from "../test-postgres.ts";

/** A TCP port of this machine that leads to the server. */
export interface UnreliableWay {
  readonly port: number;
  /** Breaks every connection and refuses new ones. */
  cut(): Promise<void>;
  /** Takes connections again, on the same port. */
  open(): Promise<void>;
  /** Keeps connections but passes nothing on, as a server that hangs. */
  silence(isSilent: boolean): void;
  /** Holds back each piece for this long, both ways; 0 at first. */
  delay(ms: number): void;
  /** Calls back with each piece that clients send, before it is passed on. */
  onSent(listener: (bytes: Buffer) => void): void;
}

/** A way to a PostgreSQL server. */
export interface UnreliableProxy extends UnreliableWay {
  /** Address of the server's database through this way. */
  readonly url: string;
}

/** Opens a way to the server; `cut` it when done. */
export async function openUnreliableProxy(server: TestPostgres): Promise<UnreliableProxy> {
  const way = await openUnreliableWay({ path: `${server.host}/.s.PGSQL.${server.port}` });
  return { ...way, url: `postgres://${server.user}@127.0.0.1:${way.port}/${server.database}` };
}

/** Opens a way to a TCP port of this machine or to a socket; `cut` it when done. */
export async function openUnreliableWay(
  target: { readonly port: number } | { readonly path: string },
): Promise<UnreliableWay> {
  const sockets = new Set<Socket>();
  let port = 0;
  let isSilent = false;
  let delayMs = 0;
  let listener: (bytes: Buffer) => void = () => {};

  const join = (from: Socket, to: Socket, watch: (bytes: Buffer) => void) => {
    sockets.add(from);
    from.on("data", (bytes) => {
      watch(bytes);
      const pass = () => !to.destroyed && to.write(bytes);
      // Timers of one length end in the order in which they began.
      if (delayMs > 0) setTimeout(pass, delayMs);
      else pass();
    });
    from.on("error", () => {});
    from.on("close", () => {
      sockets.delete(from);
      to.destroy();
    });
    if (isSilent) from.pause();
  };
  const accept = createServer((client) => {
    const upstream = createConnection("path" in target ? target : { ...target, host: "127.0.0.1" });
    join(client, upstream, (bytes) => listener(bytes));
    join(upstream, client, () => {});
  });
  const listen = () =>
    new Promise<void>((resolve, reject) => {
      accept.once("error", reject);
      accept.listen(port, "127.0.0.1", () => {
        port = (accept.address() as AddressInfo).port;
        resolve();
      });
    });
  await listen();
  return {
    port,
    async cut() {
      const closed = new Promise((resolve) => accept.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
    open: listen,
    silence(silent) {
      isSilent = silent;
      for (const socket of sockets) silent ? socket.pause() : socket.resume();
    },
    delay(ms) {
      delayMs = ms;
    },
    onSent(next) {
      listener = next;
    },
  };
}
