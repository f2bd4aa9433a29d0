/** The CDN of a topology, and the purges that commits cause there. */
import { type Cdn, cloudflareCdn, createPurger, type Purger, varnishCdn } from "../../cdn/index.ts";
import type { Lifecycle } from "../../kernel/lifecycle.ts";
import type { Logger } from "../../kernel/log.ts";
import type { Environment, Topology } from "../../topology/index.ts";

/** The CDN with its purger; `purger` is undefined where there is no CDN. */
export interface OpenCdn {
  readonly cdn: Cdn | undefined;
  readonly purger: Purger | undefined;
}

/** The driver that the topology names; undefined without a CDN. Raises `SECRET_MISSING` when its token's variable is not set. */
export function cdnOf(topology: Topology, environment: Environment): Cdn | undefined {
  const { provider, zone, token, addresses } = topology.cdn ?? {};
  if (token === undefined) return undefined;
  if (provider === "varnish" && addresses !== undefined) {
    return varnishCdn({ addresses, secret: token.reveal(environment) });
  }
  if (provider === "cloudflare" && zone !== undefined) return cloudflareCdn({ zone, token: token.reveal(environment) });
  return undefined;
}

/** Opens it; `lifecycle` learns how to send the last purges. */
export function openCdn(options: {
  readonly topology: Topology;
  readonly environment: Environment;
  readonly log: Logger;
  readonly lifecycle: Lifecycle;
}): OpenCdn {
  const { topology, environment, log, lifecycle } = options;
  const cdn = cdnOf(topology, environment);
  if (cdn === undefined) return { cdn, purger: undefined };
  const purger = createPurger({ cdn, log });
  lifecycle.started("purges", () => purger.close(), 5_000);
  return { cdn, purger };
}
