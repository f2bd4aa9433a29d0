/** CDN: what may be kept in front of the app, and how it is taken back. */
export { type CachePolicy, isAnonymous, measuringCookies } from "./cache-policy.ts";
export type { Cdn, PurgeOptions } from "./cdn.ts";
export { type CloudflareCdnOptions, cloudflareCdn } from "./drivers/cloudflare-cdn.ts";
export { type VarnishCdnOptions, varnishCdn } from "./drivers/varnish-cdn.ts";
export { createPurger, type Purger, type PurgerOptions, type PurgerStats } from "./purger.ts";
export { siteKey, surrogateKey } from "./surrogate-key.ts";
