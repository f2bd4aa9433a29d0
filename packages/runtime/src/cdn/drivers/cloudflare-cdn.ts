/**
 * Cloudflare: purges by cache tag through its API.
 *
 * Written from Cloudflare's documentation (API reference, "Purge Cached Content"; "Purge cache by cache-tags": header `Cache-Tag`,
 * comma between tags) and tried against a local server of that shape. It has not been run against Cloudflare itself.
 *
 * Its limits, which the purger keeps to: 30 tags a call on every plan but Enterprise (100 there), calls a second by plan,
 * answered 429 beyond. A purge there is final: no copy is kept for an outage.
 */
import { ConfigError, UnavailableError } from "../../kernel/errors.ts";
import type { Cdn } from "../cdn.ts";

/** Settings of {@link cloudflareCdn}. */
export interface CloudflareCdnOptions {
  /** Id of the zone: 32 hexadecimal digits on its overview page. */
  readonly zone: string;
  /** API token with the permission "Cache Purge" for this zone. */
  readonly token: string;
  /** Default Cloudflare's own. */
  readonly endpoint?: string;
}

const endpointDefault = "https://api.cloudflare.com/client/v4";
const tagsMax = 30;
const answerBytesShown = 300;

/** Makes the driver; it connects when it purges. */
export function cloudflareCdn({ zone, token, endpoint = endpointDefault }: CloudflareCdnOptions): Cdn {
  const url = `${endpoint}/zones/${encodeURIComponent(zone)}/purge_cache`;
  return {
    name: "cloudflare",
    keyHeader: "cache-tag",
    keySeparator: ",",
    isSoft: false,
    keysMax: tagsMax,
    async purge(keys, { signal } = {}) {
      let answer: Response;
      try {
        answer = await fetch(url, {
          method: "POST",
          headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
          body: JSON.stringify({ tags: keys }),
          redirect: "error",
          ...(signal === undefined ? {} : { signal }),
        });
      } catch (cause) {
        throw new UnavailableError("CDN_UNREACHABLE", "Cloudflare's API did not answer a purge. It is tried again.", {
          canRetry: true,
          cause,
        });
      }
      await judge(answer);
    },
  };
}

async function judge(answer: Response): Promise<void> {
  const text = await answer.text().catch(() => "");
  if (answer.ok && isSuccess(text)) return;
  const said = text.slice(0, answerBytesShown);
  if (answer.status === 429 || answer.status >= 500) {
    throw new UnavailableError("CDN_UNREACHABLE", `Cloudflare's API answered a purge with ${answer.status}: ${said}`, {
      canRetry: true,
    });
  }
  throw new ConfigError(
    "CDN_REFUSED",
    `Cloudflare's API refused a purge with ${answer.status}: ${said}. Check cdn.zone, and that cdn.token may purge its cache.`,
  );
}

function isSuccess(text: string): boolean {
  try {
    return (JSON.parse(text) as { success?: unknown }).success === true;
  } catch {
    return false;
  }
}
