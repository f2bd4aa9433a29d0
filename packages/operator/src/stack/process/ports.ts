/** Ports of loopback for the servers of a stack. */
import { randomInt } from "node:crypto";
import { createServer } from "node:net";
import { UnavailableError } from "rungs";

/**
 * Below 32,768, where Linux begins to give ports to outgoing connections: such a connection would keep a server from
 * coming back to its port.
 */
const range = { first: 20_000, last: 31_999 };
const triesMax = 2_000;

/** Whether nobody listens on this port of loopback. */
export function isFree(port: number, host = "127.0.0.1"): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * Free ports by name: those of the last start where they still are free, others elsewhere. `hostsOf`: addresses on which a port must be
 * free too; default none beside loopback's first. Raises `SERVER_START_FAILED` when there are none.
 */
export async function choosePorts(
  names: readonly string[],
  before: Readonly<Record<string, number>>,
  hostsOf: (name: string) => readonly string[] = () => [],
): Promise<Record<string, number>> {
  const chosen: Record<string, number> = {};
  const taken = new Set<number>();
  const take = async (name: string, port: number): Promise<boolean> => {
    if (taken.has(port) || !(await isFree(port))) return false;
    for (const host of hostsOf(name)) if (!(await isFree(port, host))) return false;
    taken.add(port);
    chosen[name] = port;
    return true;
  };
  for (const name of names) {
    const last = before[name];
    if (last !== undefined && (await take(name, last))) continue;
    let port = randomInt(range.first, range.last + 1);
    for (let tries = 0; !(await take(name, port)); tries++) {
      if (tries > triesMax) {
        throw new UnavailableError(
          "SERVER_START_FAILED",
          `No free port was found for ${name} between ${range.first} and ${range.last}.`,
          { canRetry: true },
        );
      }
      port = port === range.last ? range.first : port + 1;
    }
  }
  return chosen;
}
