/** The shape of a topology: where each tier runs. An empty one is rung 1. */
import { z } from "zod";
import { Secret } from "./secret.ts";

const secret = z.union([
  z.instanceof(Secret),
  z.strictObject({ env: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, "must name an environment variable") }).transform((ref) => new Secret(ref.env)),
]);

/** A server's address without a password, or a reference to a whole one. */
const address = z.union([
  secret,
  z
    .string()
    .refine((text) => URL.canParse(text), { message: "must be a URL", abort: true })
    .refine((text) => new URL(text).password === "", "holds a password; write env(\"DATABASE_URL\") (in JSON { \"env\": \"DATABASE_URL\" }) and set that variable"),
]);

const positive = z.int().min(1);
const shard = z.strictObject({ leader: address, followers: z.array(address).optional() });

/** Schema of a topology as written; every key is optional. */
export const topologySchema = z.strictObject({
  dataDirectory: z.string().min(1).optional(),
  web: z
    .strictObject({
      host: z.string().min(1).optional(),
      port: z.int().min(0).max(65_535).optional(),
      processes: positive.max(256).optional(),
      balancer: z.enum(["nginx", "haproxy"]).optional(),
      bodyLimitBytes: positive.optional(),
      requestTimeoutMs: positive.optional(),
      trustProxy: z.array(z.string()).optional(),
    })
    .optional(),
  sessions: z.strictObject({ url: address.optional() }).optional(),
  cache: z
    .strictObject({
      isEnabled: z.boolean().optional(),
      url: address.optional(),
      local: z.strictObject({ entries: positive.optional(), bytes: positive.optional() }).optional(),
    })
    .optional(),
  cdn: z.strictObject({ provider: z.enum(["varnish", "cloudflare"]), zone: z.string().optional(), token: secret.optional() }).optional(),
  database: z
    .strictObject({
      key: z.string().min(1).optional(),
      strategy: z.enum(["hash", "range"]).optional(),
      splits: z.array(z.string()).optional(),
      shards: z.union([positive.max(64), z.array(shard).min(1).max(1_024)]).optional(),
      pool: z.strictObject({ connectionsMax: positive.optional(), acquireTimeoutMs: positive.optional() }).optional(),
      statementTimeoutMs: z.int().min(0).optional(),
      preparedStatements: z.boolean().optional(),
    })
    .optional(),
  queue: z.strictObject({ url: address.optional() }).optional(),
  regions: z.record(z.string(), z.unknown()).optional(),
  log: z.strictObject({ level: z.enum(["debug", "info", "warn", "error", "silent"]).optional() }).optional(),
});

/** A topology as the developer writes it. */
export type TopologyInput = z.input<typeof topologySchema>;

/** A topology with every default filled in. */
export interface Topology {
  readonly dataDirectory: string;
  readonly web: {
    readonly host: string;
    readonly port: number;
    readonly processes: number;
    readonly balancer?: "nginx" | "haproxy" | undefined;
    readonly bodyLimitBytes: number;
    readonly requestTimeoutMs: number;
    readonly trustProxy: readonly string[];
  };
  readonly sessions: { readonly url?: string | Secret | undefined };
  readonly cache: {
    readonly isEnabled: boolean;
    readonly url?: string | Secret | undefined;
    readonly local: { readonly entries: number; readonly bytes: number };
  };
  readonly cdn?: { readonly provider: "varnish" | "cloudflare"; readonly zone?: string | undefined; readonly token?: Secret | undefined } | undefined;
  readonly database: {
    readonly key: string;
    readonly strategy: "hash" | "range";
    readonly splits: readonly string[];
    /** A number: embedded servers. A list: servers by address. */
    readonly shards: number | readonly { readonly leader: string | Secret; readonly followers?: readonly (string | Secret)[] | undefined }[];
    readonly pool: { readonly connectionsMax: number; readonly acquireTimeoutMs: number };
    readonly statementTimeoutMs: number;
    readonly preparedStatements: boolean;
  };
  readonly queue: { readonly url?: string | Secret | undefined };
  readonly regions?: Readonly<Record<string, unknown>> | undefined;
  readonly log: { readonly level: "debug" | "info" | "warn" | "error" | "silent" };
}

/** What holds where nothing is said: rung 1. */
export const defaultTopology: Topology = {
  dataDirectory: ".rungs",
  web: {
    host: "127.0.0.1",
    port: 3000,
    processes: 1,
    bodyLimitBytes: 1024 * 1024,
    requestTimeoutMs: 30_000,
    trustProxy: [],
  },
  sessions: {},
  cache: { isEnabled: true, local: { entries: 10_000, bytes: 64 * 1024 * 1024 } },
  database: {
    key: "user_id",
    strategy: "hash",
    splits: [],
    shards: 1,
    pool: { connectionsMax: 20, acquireTimeoutMs: 2_000 },
    statementTimeoutMs: 10_000,
    preparedStatements: true,
  },
  queue: {},
  log: { level: "info" },
};

/** Typed identity for `rungs.config.ts`. */
export function defineTopology(topology: TopologyInput): TopologyInput {
  return topology;
}
