import { describe, expect, it } from "vitest";
import { parseRedisAddress } from "../../src/redis/redis-address.ts";
import { slotOf } from "../../src/redis/redis-slot.ts";

describe("the address of a Redis", () => {
  const plain = { kind: "server", isTls: false, login: {}, database: 0, master: "", sentinelLogin: {} };
  it.each([
    ["redis://localhost", { ...plain, nodes: [{ host: "localhost", port: 6379 }] }],
    ["rediss://h:1/3", { ...plain, isTls: true, database: 3, nodes: [{ host: "h", port: 1 }] }],
    ["redis://:p%40s%3A@h", { ...plain, login: { password: "p@s:" }, nodes: [{ host: "h", port: 6379 }] }],
    [
      "redis://app:x@[::1]:7/",
      { ...plain, login: { username: "app", password: "x" }, nodes: [{ host: "::1", port: 7 }] },
    ],
    [
      "redis+sentinel://u:p@a,b:2/main/1?sentinelUsername=s&sentinelPassword=q%26",
      {
        ...plain,
        kind: "sentinel",
        login: { username: "u", password: "p" },
        master: "main",
        database: 1,
        sentinelLogin: { username: "s", password: "q&" },
        nodes: [
          { host: "a", port: 26379 },
          { host: "b", port: 2 },
        ],
      },
    ],
    [
      "rediss+cluster://a:1,b",
      {
        ...plain,
        kind: "cluster",
        isTls: true,
        nodes: [
          { host: "a", port: 1 },
          { host: "b", port: 6379 },
        ],
      },
    ],
  ])("%s is understood", (text, address) => {
    expect(parseRedisAddress(text)).toEqual(address);
  });

  it.each([
    "",
    "hunter2",
    "http://hunter2",
    "redis://",
    "redis://a,hunter2",
    "redis://hunter2:0",
    "redis://h:65536/hunter2",
    "redis://h/hunter2",
    "redis://h/1/hunter2",
    "redis://h/?hunter2=1",
    "redis+sentinel://hunter2",
    "redis+cluster://hunter2/1",
    "redis://:%zz-hunter2@h",
    "redis://:p@hunter2@h",
    "redis+other://hunter2",
  ])("%s is refused, and nothing of it repeated", (text) => {
    expect(() => parseRedisAddress(text)).toThrow(
      expect.objectContaining({ code: "CONFIG_INVALID", message: expect.not.stringContaining("hunter2") }),
    );
  });
});

describe("the slot of a key", () => {
  // Of the Redis Cluster specification and of CLUSTER KEYSLOT.
  it.each([
    ["123456789", 0x31c3],
    ["", 0],
    ["foo", 12182],
    ["{user1000}.following", 3443],
    ["{user1000}.followers", 3443],
    ["foo{}{bar}", 8363],
    ["foo{{bar}}zap", 4015],
    ["foo{bar}{zap}", 5061],
    ["ä", 13929],
  ])("%j is %i", (key, slot) => {
    expect(slotOf(key)).toBe(slot);
  });
});
