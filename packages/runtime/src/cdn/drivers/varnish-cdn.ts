/**
 * Varnish as the CDN's points of presence: purges by surrogate key (vmod xkey) at the addresses of its purge socket.
 *
 * Protocol, as the VCL of `rungs up` reads it: `PURGE /` with the keys in `xkey-purge`, `xkey-soft: 1` for a soft purge, and the
 * shared secret in `x-purge-secret`; answered 200 with the number of answers that were purged.
 */
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import type { Cdn } from "../cdn.ts";

/** Settings of {@link varnishCdn}. */
export interface VarnishCdnOptions {
  /** Base addresses of the purge sockets, one a Varnish, e.g. `http://127.0.0.1:6082`. All must confirm. */
  readonly addresses: readonly string[];
  /** The secret that the VCL asks for. */
  readonly secret: string;
}

/** 20 bytes a key stay below Varnish's 8 KB for a header. */
const keysMax = 200;

/** Makes the driver; it connects when it purges. */
export function varnishCdn({ addresses, secret }: VarnishCdnOptions): Cdn {
  return {
    name: "varnish",
    keyHeader: "xkey",
    keySeparator: " ",
    isSoft: true,
    keysMax,
    async purge(keys, { soft = true, signal } = {}) {
      const headers = {
        "xkey-purge": keys.join(" "),
        "x-purge-secret": secret,
        ...(soft ? { "xkey-soft": "1" } : {}),
      };
      await Promise.all(addresses.map((address) => purgeAt(address, headers, signal)));
    },
  };
}

async function purgeAt(
  address: string,
  headers: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
): Promise<void> {
  let status: number;
  try {
    const answer = await fetch(new URL("/", address), {
      method: "PURGE",
      headers,
      ...(signal === undefined ? {} : { signal }),
    });
    await answer.body?.cancel();
    status = answer.status;
  } catch (cause) {
    throw new UnavailableError("CDN_UNREACHABLE", `Varnish at ${address} did not confirm a purge. It is tried again.`, {
      canRetry: true,
      cause,
    });
  }
  if (status === 200) return;
  if (status === 403 || status === 404 || status === 405) {
    throw new ConfigError(
      "CDN_REFUSED",
      `Varnish at ${address} refused a purge with status ${status}. Check that this is its purge socket, and the secret in cdn.token.`,
    );
  }
  throw new UnavailableError("CDN_UNREACHABLE", `Varnish at ${address} answered a purge with status ${status}.`, {
    canRetry: true,
  });
}
