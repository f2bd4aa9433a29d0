/** Lua scripts, which Redis runs in one step each. */
import { createHash } from "node:crypto";

/** A script. It may touch only the keys it is given. */
export interface RedisScript {
  readonly source: string;
  /** What the server knows it by. */
  readonly sha1: string;
}

/** Makes a script of its Lua source. */
export function redisScript(source: string): RedisScript {
  return { source, sha1: createHash("sha1").update(source).digest("hex") };
}
