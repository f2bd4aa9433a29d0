/** What every shared cache store must do, whatever it is made of. Run it against the real server behind each driver. */
import { randomBytes, randomUUID } from "node:crypto";
import { UnavailableError } from "rungs";
import type { SharedCacheStore } from "rungs/cache";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { UnreliableWay } from "./support/unreliable-proxy.ts";
import { until } from "./support/until.ts";

/** Two stores on one real server, each by a way of its own, and what the suite needs to disturb them. */
export interface SharedCacheStoreUnderTest {
  readonly store: SharedCacheStore;
  readonly other: SharedCacheStore;
  /** The way of `store`. */
  readonly way: UnreliableWay;
  /** Bound of a call, in milliseconds, as the stores were made with. */
  readonly commandMs: number;
  /** Makes the server forget everything. */
  flush(): Promise<unknown>;
  /** Frees everything. */
  close(): Promise<void>;
}

const lifeMs = 60_000;
const leaseMs = 2_000;

/** The suite. */
export function sharedCacheStoreContract(options: {
  readonly name: string;
  open(): Promise<SharedCacheStoreUnderTest>;
}): void {
  describe(`shared cache store contract: ${options.name}`, () => {
    let subject: SharedCacheStoreUnderTest;
    const at = () => subject;
    beforeAll(async () => {
      subject = await options.open();
      await until("both stores answer", async () => {
        await Promise.all([subject.store.check(), subject.other.check()]);
        return true;
      });
    });
    afterAll(() => subject?.close());
    values(at);
    leases(at);
    faults(at);
  });
}

function values(at: () => SharedCacheStoreUnderTest): void {
  it("declares its capabilities", () => {
    expect(at().store.capabilities).toEqual({
      isShared: true,
      resolutionMs: expect.any(Number),
      valueBytesMax: expect.any(Number),
    });
  });

  it("gives every process the bytes that one wrote, and nothing for an unknown key", async () => {
    const key = randomUUID();
    expect(await at().other.read(key)).toBeUndefined();
    const bytes = Buffer.concat([
      Buffer.from(Array.from({ length: 256 }, (_, byte) => byte)),
      Buffer.from("\r\nEN\r\n"),
    ]);
    await at().store.write(key, bytes, { lifeMs });
    expect((await at().other.read(key))?.bytes).toEqual(bytes);
  });

  it("takes values from nothing up to its bound", async () => {
    const { valueBytesMax } = at().store.capabilities;
    const sizes = [0, 1, 1_024, 100_000, Math.min(valueBytesMax, 1_000_000)];
    for (const size of sizes) {
      const bytes = randomBytes(size);
      await at().store.write(`size ${size}`, bytes, { lifeMs });
      expect((await at().store.read(`size ${size}`))?.bytes.equals(bytes)).toBe(true);
    }
  });

  it("tells keys apart whatever they hold", async () => {
    const keys = [
      "",
      " ",
      "a",
      "A",
      "a b",
      "a\r\nb",
      "a\u0000b",
      "ä",
      "sha256:x",
      "__proto__",
      "k".repeat(1_000),
      "k".repeat(1_001),
    ];
    await Promise.all(keys.map((key) => at().store.write(key, Buffer.from(`of ${key}`), { lifeMs })));
    for (const key of keys) expect((await at().other.read(key))?.bytes.toString()).toBe(`of ${key}`);
  });

  it("counts a value's life down, and ends it", async () => {
    const { resolutionMs } = at().store.capabilities;
    const key = randomUUID();
    const life = Math.max(300, 2 * resolutionMs);
    await at().store.write(key, Buffer.from("x"), { lifeMs: life });
    const { remainingMs = 0 } = (await at().store.read(key)) ?? {};
    expect(Math.abs(life - remainingMs)).toBeLessThanOrEqual(Math.max(200, resolutionMs));
    await until(
      "it has ended",
      async () => (await at().store.read(key)) === undefined,
      life + 2 * resolutionMs + 1_000,
    );
  });

  it("replaces and deletes", async () => {
    const key = randomUUID();
    await at().store.write(key, Buffer.from("1"), { lifeMs });
    await at().other.write(key, Buffer.from("2"), { lifeMs });
    expect((await at().store.read(key))?.bytes.toString()).toBe("2");
    await at().store.delete(key);
    await at().store.delete(key);
    expect(await at().other.read(key)).toBeUndefined();
  });

  it("answers a thousand calls at once, each with its own", async () => {
    const keys = Array.from({ length: 1_000 }, (_, index) => `many ${index}`);
    await Promise.all(keys.map((key) => at().store.write(key, Buffer.from(key), { lifeMs })));
    const found = await Promise.all(keys.map((key) => at().store.read(key)));
    expect(found.map((value) => value?.bytes.toString())).toEqual(keys);
  });
}

function leases(at: () => SharedCacheStoreUnderTest): void {
  it("gives the lease of a key to one of a hundred who ask at once", async () => {
    const key = randomUUID();
    const asked = Array.from({ length: 100 }, (_, index) =>
      (index % 2 === 0 ? at().store : at().other).acquire(key, leaseMs),
    );
    const won = (await Promise.all(asked)).filter(({ lease }) => lease !== undefined);
    expect(won).toHaveLength(1);
  });

  it("gives it again once a value was written with it, and shows that value to who asks", async () => {
    const key = randomUUID();
    const first = await at().store.acquire(key, leaseMs);
    expect([first.lease === undefined, first.found]).toEqual([false, undefined]);
    expect((await at().other.acquire(key, leaseMs)).lease).toBeUndefined();
    await at().store.write(key, Buffer.from("v"), { lifeMs, lease: first.lease });
    const second = await at().other.acquire(key, leaseMs);
    expect([second.lease === undefined, second.found?.bytes.toString()]).toEqual([false, "v"]);
    expect(second.lease).not.toBe(first.lease);
  });

  it("gives it again when it is given back, but not by one who does not hold it", async () => {
    const key = randomUUID();
    const { lease = "" } = await at().store.acquire(key, leaseMs);
    await at().other.release(key, "123456");
    expect((await at().other.acquire(key, leaseMs)).lease).toBeUndefined();
    await at().other.write(key, Buffer.from("without a lease"), { lifeMs });
    expect((await at().other.acquire(key, leaseMs)).lease).toBeUndefined();
    await at().store.release(key, lease);
    expect((await at().other.acquire(key, leaseMs)).lease).toBeDefined();
  });

  it("ends it by itself, unless it is prolonged", async () => {
    const [lost, kept] = [randomUUID(), randomUUID()];
    await at().store.acquire(lost, leaseMs);
    const { lease = "" } = await at().store.acquire(kept, leaseMs);
    const prolonging = setInterval(() => void at().store.renew(kept, lease, leaseMs), leaseMs / 4);
    const since = performance.now();
    await until("the lost one is free", async () => (await at().other.acquire(lost, leaseMs)).lease !== undefined);
    expect(performance.now() - since).toBeLessThan(leaseMs + at().store.capabilities.resolutionMs + 200);
    expect((await at().other.acquire(kept, leaseMs)).lease).toBeUndefined();
    expect(await at().store.renew(kept, lease, leaseMs)).toBe(true);
    clearInterval(prolonging);
    expect(await at().store.renew(lost, "123456", leaseMs)).toBe(false);
  });
}

function faults(at: () => SharedCacheStoreUnderTest): void {
  const every = (store: SharedCacheStore) => ({
    read: () => store.read("k"),
    acquire: () => store.acquire("k", leaseMs),
    renew: () => store.renew("k", "1", leaseMs),
    write: () => store.write("k", Buffer.from("v"), { lifeMs }),
    release: () => store.release("k", "1"),
    delete: () => store.delete("k"),
    check: () => store.check(),
  });
  const unreachable = async () => {
    for (const [method, call] of Object.entries(every(at().store))) {
      const since = performance.now();
      const error = await call().then(
        () => undefined,
        (raised: unknown) => raised,
      );
      expect(error, method).toBeInstanceOf(UnavailableError);
      expect((error as UnavailableError).code, method).toBe("CACHE_STORE_UNREACHABLE");
      expect(performance.now() - since, method).toBeLessThan(2 * at().commandMs + 100);
    }
  };
  const worksAgain = () =>
    until("it works again", async () => {
      await at().store.write("back", Buffer.from("v"), { lifeMs });
      return (await at().store.read("back"))?.bytes.toString() === "v";
    });

  it("works over a slow way", async () => {
    at().way.delay(Math.floor(at().commandMs / 8));
    await at().store.write("slow", Buffer.from("v"), { lifeMs });
    const found = await Promise.all(Array.from({ length: 100 }, () => at().store.read("slow")));
    at().way.delay(0);
    expect(new Set(found.map((value) => value?.bytes.toString()))).toEqual(new Set(["v"]));
  });

  it("raises CACHE_STORE_UNREACHABLE within its bound from every method while nothing comes back, and recovers", async () => {
    at().way.silence(true);
    await unreachable();
    at().way.silence(false);
    await worksAgain();
  });

  it("raises it while the server cannot be reached, and recovers", async () => {
    await at().way.cut();
    await unreachable();
    await at().way.open();
    await worksAgain();
  });

  it("never mixes answers up over lost connections", async () => {
    const keys = Array.from({ length: 50 }, (_, index) => `mixed ${index}`);
    await Promise.all(keys.map((key) => at().other.write(key, Buffer.from(key), { lifeMs })));
    for (let round = 0; round < 5; round++) {
      const asked = keys.map(async (key) =>
        (
          await at()
            .store.read(key)
            .catch(() => undefined)
        )?.bytes.toString(),
      );
      await at().way.cut();
      await at().way.open();
      for (const [index, text] of (await Promise.all(asked)).entries())
        expect([undefined, keys[index]]).toContain(text);
      await worksAgain();
    }
  });

  it("is empty after a flush, leases too", async () => {
    const key = randomUUID();
    await at().store.acquire(key, leaseMs);
    await at().store.write(key, Buffer.from("v"), { lifeMs });
    await at().flush();
    const { lease, found } = await at().other.acquire(key, leaseMs);
    expect([lease === undefined, found]).toEqual([false, undefined]);
  });
}
