/** The port to a content delivery network (CDN): a shared cache in front of the web tier that can be told to let go of answers. */

/** Options of {@link Cdn.purge}. */
export interface PurgeOptions {
  /**
   * Keep what is purged for the case that the app does not answer; default true. A driver whose network cannot do that purges
   * for good: see {@link Cdn.isSoft}.
   */
  readonly soft?: boolean;
  /** Ends the wait. */
  readonly signal?: AbortSignal;
}

/** A CDN as the app uses it. Drivers: Varnish, Cloudflare. */
export interface Cdn {
  /** For messages and metrics, e.g. "varnish". */
  readonly name: string;
  /** Header in which answers bring their surrogate keys, in lower case. */
  readonly keyHeader: string;
  /** What stands between keys there. */
  readonly keySeparator: " " | ",";
  /** Whether it can keep purged answers for an outage of the app. */
  readonly isSoft: boolean;
  /** Keys that one call may carry; the purger cuts more into several calls. */
  readonly keysMax: number;
  /**
   * Purges every answer that bears one of the keys, everywhere, and resolves when that was confirmed. At most {@link Cdn.keysMax}
   * keys, each made by `surrogateKey`. Raises `CDN_UNREACHABLE` (worth a retry, perhaps after `retryAfterMs`) or `CDN_REFUSED`.
   */
  purge(keys: readonly string[], options?: PurgeOptions): Promise<void>;
}
