/** One HTTP request to a server of this machine, on a connection of its own. */
import { request } from "node:http";

/** Resolves with the status once the whole answer is here. */
export function statusOf(url: string, signal: AbortSignal): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { agent: false, signal, headers: { connection: "close" } }, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode ?? 0));
      response.once("error", reject);
    });
    asked.once("error", reject);
    asked.end();
  });
}

/** A probe: raises unless the address answers 200. */
export async function expectOk(url: string, signal: AbortSignal): Promise<void> {
  const status = await statusOf(url, signal);
  if (status !== 200) throw new Error(`${url} answered ${status}.`);
}
