/** Streams over real HTTP connections. */
import type { EventStreamClient } from "@rungs/contract/event-stream-client";
import { afterEach, describe, expect, test } from "vitest";
import { seededRandom } from "../../src/kernel/random.ts";
import { localFanOut } from "../../src/live/drivers/local-fan-out.ts";
import type { LiveOptions, OpenOptions } from "../../src/live/index.ts";
import { handClock, type LiveServer, memoryRecord, startLiveServer } from "./support.ts";

const servers: LiveServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop();
});

async function serve(
  options?: Partial<LiveOptions>,
  stream?: (owner: string) => Partial<OpenOptions>,
): Promise<LiveServer> {
  const server = await startLiveServer(options, stream);
  servers.push(server);
  return server;
}

const told = (client: EventStreamClient) => client.data("told");

describe("an answer", () => {
  test("is a stream that nobody stores, changes or holds back", async () => {
    const { connect } = await serve();
    const client = await connect();
    expect([client.status, client.headers["content-type"], client.headers["cache-control"]]).toEqual([
      200,
      "text/event-stream; charset=utf-8",
      "no-store, no-transform",
    ]);
    expect(client.headers["x-accel-buffering"]).toBe("no");
    expect(client.headers["x-content-type-options"]).toBe("nosniff");
    await expect.poll(client.retryMs).toBeGreaterThanOrEqual(2_000);
    client.close();
  });

  test("is an ordinary error when the stream cannot open", async () => {
    const { connect } = await serve({}, () => {
      const fails = () => Promise.reject(Object.assign(new Error("not yours"), { statusCode: 403 }));
      return { record: { topic: "a", newest: fails, after: fails } };
    });
    const client = await connect();
    expect([client.status, client.headers["content-type"]]).toEqual([403, "application/json; charset=utf-8"]);
    await client.ended;
    expect(JSON.parse(client.text())).toEqual({ errors: { body: ["the request was refused"] } });
  });

  test("is 503 with a Retry-After above the process's limit, and room is made when a client goes", async () => {
    const { connect, live } = await serve({ streamsMax: 2 });
    const clients = [await connect("/live?owner=x"), await connect("/live?owner=y")];
    const refused = await connect("/live?owner=z");
    expect(refused.status).toBe(503);
    expect(Number(refused.headers["retry-after"])).toBeGreaterThanOrEqual(5);
    expect(live.stats()).toMatchObject({ streams: 2, refused: 1 });
    clients[0]?.close();
    await expect.poll(() => live.stats().streams).toBe(1);
    const next = await connect("/live?owner=z");
    expect(next.status).toBe(200);
    expect(live.stats().ended.closed).toBe(1);
    clients[1]?.close();
    next.close();
  });
});

describe("messages", () => {
  test("cannot forge fields: line ends stay within the data", async () => {
    const { connect, live } = await serve();
    const client = await connect();
    const hostile = "x\n\nevent: forged\ndata: 1\r\rid: 9\r\n\r\nretry: 1\u2028\u2029\u0085";
    await live.send("a", { event: "told", data: { [hostile]: hostile }, id: "1\nevent: forged" });
    for (const event of ["forged\ndata: 1\n\n", "a\rb", "Told", "", "reset", "end", "rungs.recheck"]) {
      await live.send("a", { event, data: null });
    }
    await live.send("a", { event: "told", data: "last" });
    await expect.poll(() => told(client)).toEqual([{ [hostile]: hostile }, "last"]);
    expect(client.events.map(({ event }) => event)).toEqual(["told", "told"]);
    expect(client.lastEventId()).toBe("");
    expect(live.stats().unsent.invalid).toBe(7);
    client.close();
  });

  test("that are too large, have no JSON, or meet a broken carrier are counted and raise nothing", async () => {
    const fanOut = { ...localFanOut(), publish: () => Promise.reject(new Error("carrier gone")) };
    const hung = { ...localFanOut(), publish: () => new Promise<void>(() => {}) };
    const loop: { self?: unknown } = {};
    loop.self = loop;
    const one = await startLiveServer({ messageBytesMax: 100, fanOut });
    const two = await startLiveServer({ sendMs: 20, fanOut: hung });
    servers.push(one, two);
    await one.live.send("a", { event: "told", data: "x".repeat(99) });
    await one.live.send("a", { event: "told", data: loop });
    await one.live.send("a", { event: "told", data: "x".repeat(98) });
    await two.live.send("a", { event: "told", data: 1 });
    expect(one.live.stats().unsent).toEqual({ tooLarge: 1, invalid: 1, failed: 1, late: 0 });
    expect(two.live.stats().unsent.late).toBe(1);
  });

  test("of one topic reach its streams by one subscription, which ends with the last of them", async () => {
    const carrier = localFanOut();
    let subscriptions = 0;
    const fanOut: typeof carrier = {
      ...carrier,
      async subscribe(topic, listener) {
        subscriptions++;
        const leave = await carrier.subscribe(topic, listener);
        return async () => {
          subscriptions--;
          await leave();
        };
      },
    };
    const server = await startLiveServer({ fanOut });
    servers.push(server);
    const clients = await Promise.all([1, 2, 3].map((owner) => server.connect(`/live?owner=${owner}`)));
    expect([subscriptions, server.live.stats().topics]).toEqual([1, 1]);
    await server.live.send("a", { event: "told", data: 1 });
    for (const client of clients) await expect.poll(() => told(client)).toEqual([1]);
    for (const client of clients) client.close();
    await expect.poll(() => subscriptions).toBe(0);
    expect(server.live.stats().topics).toBe(0);
  });
});

describe("resuming", () => {
  test("gives what was missed, by header and by address, and then what comes", async () => {
    const { record, commit } = memoryRecord("a");
    const { connect, live } = await serve({}, () => ({ record }));
    for (const number of [1, 2, 3]) commit(number);
    const byHeader = await connect("/live", { "last-event-id": "1" });
    const byAddress = await connect("/live?lastEventId=2");
    const both = await connect("/live?lastEventId=0", { "last-event-id": "3" });
    const fresh = await connect();
    await live.send("a", commit(4));
    await expect.poll(() => told(byHeader)).toEqual([2, 3, 4]);
    await expect.poll(() => told(byAddress)).toEqual([3, 4]);
    await expect.poll(() => told(both)).toEqual([4]);
    await expect.poll(() => told(fresh)).toEqual([4]);
    for (const client of [byHeader, byAddress, both, fresh]) {
      expect(client.lastEventId()).toBe("4");
      client.close();
    }
  });

  test("a fresh stream learns where it stands before anything is told", async () => {
    const { record, commit } = memoryRecord("a");
    commit(1);
    const { connect } = await serve({}, () => ({ record }));
    const client = await connect();
    await expect.poll(client.lastEventId).toBe("1");
    expect(client.events).toEqual([]);
    client.close();
  });

  test.each([
    ["too much was missed", "1"],
    ["the position is ahead of the record", "99"],
    ["it is no position", "1; drop table"],
  ])("says reset when %s, and goes on from the newest", async (_case, lastEventId) => {
    const { record, commit } = memoryRecord("a", { missedMax: 3 });
    const { connect, live } = await serve({}, () => ({ record }));
    for (let number = 1; number <= 9; number++) commit(number);
    const client = await connect("/live", { "last-event-id": lastEventId });
    await live.send("a", commit(10));
    await expect.poll(() => told(client)).toEqual([10]);
    expect(client.events.map(({ event, id }) => [event, id])).toEqual([
      ["reset", "9"],
      ["told", "10"],
    ]);
    client.close();
  });

  test("says reset when there is no record", async () => {
    const { connect } = await serve();
    const client = await connect("/live", { "last-event-id": "3" });
    await expect.poll(() => client.events.map(({ event }) => event)).toEqual(["reset"]);
    client.close();
  });

  test("a message that overtook another waits for the record; one that comes late is not given twice", async () => {
    const { record, commit, reads } = memoryRecord("a");
    const { connect, live } = await serve({}, () => ({ record }));
    const client = await connect();
    const [first, second, third] = [commit(1), commit(2), commit(3)];
    await live.send("a", third);
    await expect.poll(() => told(client)).toEqual([1, 2, 3]);
    await live.send("a", first);
    await live.send("a", second);
    await live.send("a", commit(4));
    await expect.poll(() => told(client)).toEqual([1, 2, 3, 4]);
    expect(reads()).toBe(1);
    client.close();
  });

  test("loses nothing and gives nothing twice while messages are sent late, out of order or not at all", async () => {
    const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 2 ** 32);
    const random = seededRandom(seed);
    const { record, commit } = memoryRecord("a");
    const { connect, live } = await serve({ ownerStreamsMax: 1_000 }, () => ({ record }));
    const total = 600;
    const sending = (async () => {
      const late: Promise<void>[] = [];
      for (let number = 1; number <= total; number++) {
        const message = commit(number);
        const turns = Math.floor(random.next() ** 3 * 30);
        // The last one is sent: it is what tells of all that was not.
        if (random.next() < 0.1 && number < total) continue;
        late.push(
          (async () => {
            for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
            await live.send("a", message);
          })(),
        );
        await new Promise((resolve) => setImmediate(resolve));
      }
      await Promise.all(late);
    })();
    const readers = Array.from({ length: 5 }, async () => {
      const seen: unknown[] = [];
      let position = "0";
      for (let connection = 0; connection < 1_000 && position !== String(total); connection++) {
        const client = await connect("/live", { "last-event-id": position });
        const wanted = 1 + Math.floor(random.next() * 60);
        await expect
          .poll(() => told(client).length >= wanted || client.lastEventId() === String(total), { interval: 1 })
          .toBe(true);
        client.close();
        seen.push(...told(client));
        position = client.lastEventId() === "" ? position : client.lastEventId();
      }
      return seen;
    });
    const expected = Array.from({ length: total }, (_, index) => index + 1);
    for (const seen of await Promise.all(readers)) expect(seen, `seed ${seed}`).toEqual(expected);
    await sending;
  });

  test("a record that fails while a stream is open ends it, so that the client comes back", async () => {
    const { record, commit } = memoryRecord("a");
    let isBroken = false;
    const after: typeof record.after = (position) =>
      isBroken ? Promise.reject(new Error("database gone")) : record.after(position);
    const { connect, live } = await serve({}, () => ({ record: { ...record, after } }));
    const client = await connect();
    isBroken = true;
    commit(1);
    await live.send("a", commit(2));
    expect(await client.ended).toBe("cut");
    expect(live.stats().ended.failed).toBe(1);
  });
});

describe("several processes", () => {
  test("joined by one carrier share messages and looks at sessions, each with streams of its own", async () => {
    const fanOut = localFanOut();
    const ended = new Set<string>();
    const stream = (owner: string) => ({ isAllowed: async () => !ended.has(owner) });
    const [here, there] = [await serve({ fanOut }, stream), await serve({ fanOut }, stream)];
    const clients = [await here.connect("/live?owner=x"), await there.connect("/live?owner=y")] as const;
    await here.live.send("a", { event: "told", data: 1 });
    for (const client of clients) await expect.poll(() => told(client)).toEqual([1]);
    ended.add("y");
    await here.live.recheck("a");
    expect(await clients[1].ended).toBe("ended");
    expect([here.live.stats().streams, there.live.stats().streams]).toEqual([1, 0]);
    clients[0].close();
  });
});

describe("bounds", () => {
  test("a client that does not read is cut off, while others go on, and can resume", { timeout: 30_000 }, async () => {
    const { record, commit } = memoryRecord("a", { missedMax: 20_000 });
    const { connect, live } = await serve({ queueMessagesMax: 100_000, queueBytesMax: 2_000_000 }, () => ({ record }));
    const slow = await connect();
    const quick = await connect();
    slow.pause();
    let sent = 0;
    while (live.stats().ended.slow === 0 && sent < 5_000) {
      await live.send("a", commit("x".repeat(10_000)));
      sent++;
      await expect.poll(() => told(quick).length, { interval: 1 }).toBe(sent);
    }
    expect(live.stats()).toMatchObject({ streams: 1, ended: { slow: 1 } });
    slow.resume();
    expect(await slow.ended).toBe("cut");
    expect(told(slow).length).toBeLessThan(sent);
    quick.close();
  });

  test("a connection that takes nothing for long is cut at a heartbeat", async () => {
    const clock = handClock();
    const { connect, live } = await serve({ clock, queueBytesMax: 1e9, queueMessagesMax: 1e6, checkMs: 1e9 });
    const client = await connect();
    client.pause();
    // Enough to fill the buffers of both sides.
    for (let sent = 0; sent < 2_000; sent++) await live.send("a", { event: "told", data: "x".repeat(10_000) });
    for (let beat = 0; beat < 10 && live.stats().streams > 0; beat++) {
      for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
      clock.pass(15_000);
      live.tick();
    }
    expect(live.stats().ended.stalled).toBe(1);
    client.close();
  });

  test("heartbeats come every 15 s", async () => {
    const clock = handClock();
    const { connect, live } = await serve({ clock });
    const client = await connect();
    for (let beat = 1; beat <= 3; beat++) {
      clock.pass(14_999);
      live.tick();
      clock.pass(1);
      live.tick();
      await expect.poll(client.comments).toBe(beat);
    }
    expect(client.events).toEqual([]);
    client.close();
  });

  test("an owner's oldest stream makes room for one too many; others' streams stay", async () => {
    const { connect, live } = await serve({ ownerStreamsMax: 2 });
    const other = await connect("/live?owner=other");
    const clients = [];
    for (let index = 0; index < 3; index++) clients.push(await connect("/live?owner=one"));
    expect(await clients[0]?.ended).toBe("ended");
    expect(clients[0]?.data("end")).toEqual([{ reason: "replaced" }]);
    expect(clients[0]?.retryMs()).toBeGreaterThanOrEqual(60_000);
    await live.send("a", { event: "told", data: 1 });
    for (const client of [other, clients[1], clients[2]]) {
      await expect.poll(() => told(client as EventStreamClient)).toEqual([1]);
      client?.close();
    }
    expect(live.stats().ended.replaced).toBe(1);
  });

  test("a client that goes away while its stream opens leaves nothing behind", async () => {
    let goOn: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const { record } = memoryRecord("a");
    const newest = async () => {
      await gate;
      return record.newest();
    };
    const { live, url } = await serve({}, () => ({ record: { ...record, newest } }));
    const leaving = new AbortController();
    const asked = fetch(`${url}/live`, { signal: leaving.signal });
    await expect.poll(() => live.stats().streams).toBe(1);
    leaving.abort();
    await expect(asked).rejects.toThrow();
    goOn();
    await expect.poll(() => live.stats()).toMatchObject({ streams: 0, topics: 0, ended: { closed: 1 } });
  });

  test("a stream ends when it is old, at an age of its own", async () => {
    const clock = handClock();
    const { connect, live } = await serve({ clock, random: seededRandom(1), ownerStreamsMax: 100 });
    const clients = await Promise.all(Array.from({ length: 20 }, () => connect()));
    const left: number[] = [];
    for (let minute = 0; minute < 37; minute++) {
      clock.pass(60_000);
      live.tick();
      left.push(live.stats().streams);
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect([left[22], left.at(-1)]).toEqual([20, 0]);
    expect(new Set(left).size).toBeGreaterThan(4);
    for (const client of clients) {
      expect(await client.ended).toBe("ended");
      expect(client.data("end")).toEqual([{ reason: "expired" }]);
    }
  });
});

describe("sessions", () => {
  test("a stream ends within 30 s of its session's end, and at once when told to look", async () => {
    const clock = handClock();
    const ended = new Set<string>();
    let asked = 0;
    const { connect, live } = await serve({ clock }, (owner) => ({
      isAllowed: async () => {
        asked++;
        return !ended.has(owner);
      },
    }));
    const [first, second, third] = [
      await connect("/live?owner=first"),
      await connect("/live?owner=second"),
      await connect("/live?owner=third"),
    ];
    ended.add("first");
    clock.pass(30_000);
    live.tick();
    expect(await first?.ended).toBe("ended");
    expect(first?.data("end")).toEqual([{ reason: "revoked" }]);
    ended.add("second");
    await live.recheck("a");
    expect(await second?.ended).toBe("ended");
    await live.send("a", { event: "told", data: 1 });
    await expect.poll(() => told(third as EventStreamClient)).toEqual([1]);
    expect(third?.events.map(({ event }) => event)).toEqual(["told"]);
    expect([asked, live.stats().ended.revoked]).toEqual([5, 2]);
    third?.close();
  });

  test("a look asked for during another is made up for", async () => {
    const clock = handClock();
    const answers: ((isAllowed: boolean) => void)[] = [];
    const { connect, live } = await serve({ clock }, () => ({
      isAllowed: () => new Promise<boolean>((resolve) => answers.push(resolve)),
    }));
    const client = await connect();
    clock.pass(30_000);
    live.tick();
    await live.recheck("a");
    answers[0]?.(true);
    await new Promise((resolve) => setImmediate(resolve));
    answers[1]?.(false);
    expect(await client.ended).toBe("ended");
  });

  test("however many sessions are due, all are asked for, 50 at a time", async () => {
    const clock = handClock();
    let [asking, most] = [0, 0];
    const { connect, live } = await serve({ clock }, () => ({
      isAllowed: async () => {
        most = Math.max(most, ++asking);
        await new Promise((resolve) => setImmediate(resolve));
        asking--;
        return false;
      },
    }));
    const clients = [];
    for (let owner = 0; owner < 120; owner++) clients.push(await connect(`/live?owner=${owner}`));
    clock.pass(30_000);
    live.tick();
    expect(await Promise.all(clients.map(({ ended }) => ended))).toEqual(clients.map(() => "ended"));
    expect([most, live.stats().ended.revoked]).toEqual([50, 120]);
  });

  test("a store that cannot answer ends no stream", async () => {
    const clock = handClock();
    const { connect, live } = await serve({ clock }, () => ({
      isAllowed: () => Promise.reject(new Error("store gone")),
    }));
    const client = await connect();
    clock.pass(30_000);
    live.tick();
    await live.send("a", { event: "told", data: 1 });
    await expect.poll(() => told(client)).toEqual([1]);
    client.close();
  });
});

describe("stopping", () => {
  test("ends all streams at once, says when to come back, and refuses new ones", async () => {
    const server = await startLiveServer();
    const clients = await Promise.all(["x", "y", "z"].map((owner) => server.connect(`/live?owner=${owner}`)));
    const since = performance.now();
    const draining = server.live.drain();
    expect((await server.connect()).status).toBe(503);
    await draining;
    await server.stop();
    expect(performance.now() - since).toBeLessThan(1_000);
    for (const client of clients) {
      expect(await client.ended).toBe("ended");
      expect(client.data("end")).toEqual([{ reason: "draining" }]);
      expect(client.retryMs()).toBeGreaterThanOrEqual(2_000);
    }
    expect(server.live.stats()).toMatchObject({ streams: 0, ended: { draining: 3 } });
  });

  test("is not held up by a client that does not read", async () => {
    const server = await startLiveServer({ queueBytesMax: 1e9, queueMessagesMax: 1e6, drainMs: 200 });
    const client = await server.connect();
    client.pause();
    for (let sent = 0; sent < 2_000; sent++) await server.live.send("a", { event: "told", data: "x".repeat(10_000) });
    const since = performance.now();
    await server.stop();
    expect(performance.now() - since).toBeLessThan(1_000);
    client.close();
  });

  test("a stream outlives the bound of a request, and is no slow one in the metrics", async () => {
    const { connect, live, observed, url } = await serve();
    const client = await connect();
    // The server's request bound is 1 s, looked at each second.
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    await live.send("a", { event: "told", data: 1 });
    await expect.poll(() => told(client)).toEqual([1]);
    client.close();
    await expect.poll(() => live.stats().streams).toBe(0);
    await fetch(`${url}/healthz`);
    await expect.poll(() => observed).toEqual(["/healthz"]);
  });
});
