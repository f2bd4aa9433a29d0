/** A way to a real PostgreSQL server that can be cut, silenced and opened again: what a network does to a database. */
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import type { TestPostgres } from "../test-postgres.ts";

/** A TCP port of this machine that leads to the server. */
export interface UnreliableProxy {
  /** Address of the server's database through this way. */
  readonly url: string;
  /** Breaks every connection and refuses new ones. */
  cut(): Promise<void>;
  /** Takes connections again, on the same port. */
  open(): Promise<void>;
  /** Keeps connections but passes nothing on, as a server that hangs. */
  silence(isSilent: boolean): void;
  /** Calls back with each piece that clients send, before it is passed on. */
  onSent(listener: (bytes: Buffer) => void): void;
}

/** Opens a way to the server; `cut` it when done. */
export async function openUnreliableProxy(server: TestPostgres): Promise<UnreliableProxy> {
  const target = `${server.host}/.s.PGSQL.${server.port}`;
  const sockets = new Set<Socket>();
  let port = 0;
  let isSilent = false;
  let listener: (bytes: Buffer) => void = () => {};

  const join = (from: Socket, to: Socket, watch: (bytes: Buffer) => void) => {
    sockets.add(from);
    from.on("data", (bytes) => {
      watch(bytes);
      if (!to.destroyed) to.write(bytes);
    });
    from.on("error", () => {});
    from.on("close", () => {
      sockets.delete(from);
      to.destroy();
    });
    if (isSilent) from.pause();
  };
  const accept = createServer((client) => {
    const upstream = createConnection(target);
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
    url: `postgres://${server.user}@127.0.0.1:${port}/${server.database}`,
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
    onSent(next) {
      listener = next;
    },
  };
}
