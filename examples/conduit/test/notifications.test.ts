/** Notifications by the API and the live stream, against the real app at every rung. */
import { type EventStreamClient, openEventStream } from "@rungs/contract/event-stream-client";
import { uuidV7 } from "rungs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { uploadFailed, uploadReady } from "../src/media/media-events.ts";
import { oldNotificationsDue } from "../src/notifications/notification-events.ts";
import { addNotification } from "../src/notifications/notification-statements.ts";
import { createNotifications } from "../src/notifications/notifications.ts";
import { tipCompleted } from "../src/payments/payment-events.ts";
import { type Client, client, registered } from "./support/client.ts";
import { startConduit, type TestConduit } from "./support/conduit.ts";
import { type ConduitAtRung, openStreams, startConduitAt, targets } from "./support/rungs.ts";

const wait = { timeout: 10_000, interval: 20 };

const places = targets([{ shards: 3, cache: "on" }], { rungs: [5], more: [{ shards: 1, cache: "on" }] });

describe.each(places)("at $title", (target) => {
  let conduit: ConduitAtRung;
  let count = 0;

  beforeAll(async () => {
    conduit = await startConduitAt(target);
  });
  afterAll(() => conduit?.stop());

  const person = (name: string) => registered(conduit.url, `${name}${++count}`);
  const nameOf = async (someone: Client) => (await someone.get("/user")).body.user.username as string;
  const listen = (someone: Client, query = "", headers: Record<string, string> = {}) =>
    openEventStream(`${conduit.url}/api/live${query}`, { authorization: `Token ${someone.token}`, ...headers });
  const told = (stream: EventStreamClient) =>
    stream.data("notification") as { id: number; kind: string; text: string; details: object }[];
  const idsOf = (stream: EventStreamClient) => told(stream).map(({ id }) => id);

  async function publish(author: Client): Promise<string> {
    const article = { title: `Article ${++count}`, description: "d", body: "b" };
    return (await author.post("/articles", { article })).body.article.slug;
  }

  async function followers(author: Client, number: number): Promise<void> {
    const name = await nameOf(author);
    const people = await Promise.all(Array.from({ length: number }, () => person("follower")));
    await Promise.all(people.map((each) => each.post(`/profiles/${name}/follow`)));
  }

  it("tells of a follow, a favourite and a comment, live and in the list", async () => {
    const [alice, bob] = [await person("alice"), await person("bob")];
    const bobName = await nameOf(bob);
    const slug = await publish(alice);
    const stream = await listen(alice);
    expect(stream.status).toBe(200);
    await bob.post(`/profiles/${await nameOf(alice)}/follow`);
    await expect.poll(() => told(stream).length, wait).toBe(1);
    await bob.post(`/articles/${slug}/favorite`);
    await expect.poll(() => told(stream).length, wait).toBe(2);
    await bob.post(`/articles/${slug}/comments`, { comment: { body: "Well put." } });
    await expect.poll(() => told(stream).length, wait).toBe(3);
    const { body } = await alice.get("/notifications");
    expect(body).toMatchObject({ newest: 3, readUpTo: 0, unreadCount: 3 });
    expect(body.notifications).toEqual(told(stream).reverse());
    expect(told(stream).map(({ id, kind }) => [id, kind])).toEqual([
      [1, "follow"],
      [2, "favorite"],
      [3, "comment"],
    ]);
    expect(told(stream).map(({ text }) => text)).toEqual([
      `${bobName} follows you.`,
      expect.stringMatching(`^${bobName} likes “Article \\d+”.$`),
      expect.stringMatching(`^${bobName} commented on “Article \\d+”.$`),
    ]);
    expect(told(stream)[2]?.details).toMatchObject({ slug, comment: 1 });
    stream.close();
  });

  it("tells nobody of what they did themselves, and of the same only once", async () => {
    const [alice, bob] = [await person("alice"), await person("bob")];
    const [slug, name] = [await publish(alice), await nameOf(alice)];
    await alice.post(`/articles/${slug}/favorite`);
    await alice.post(`/articles/${slug}/comments`, { comment: { body: "My own." } });
    for (let round = 0; round < 3; round++) {
      await bob.post(`/articles/${slug}/favorite`);
      await bob.delete(`/articles/${slug}/favorite`);
      await bob.post(`/profiles/${name}/follow`);
      await bob.delete(`/profiles/${name}/follow`);
    }
    // Messages of one key come in order: when the last is told, so is all before it.
    await bob.post(`/articles/${slug}/favorite`);
    await bob.post(`/articles/${slug}/comments`, { comment: { body: "Another's." } });
    const kinds = async () =>
      (await alice.get("/notifications")).body.notifications.map(({ kind }: { kind: string }) => kind).sort();
    await expect.poll(kinds, wait).toEqual(["comment", "favorite", "follow"]);
    expect((await bob.get("/notifications")).body).toMatchObject({ notifications: [], newest: 0, unreadCount: 0 });
  });

  it("counts up without gaps, once each, while many happen at once; and what is read stays read", async () => {
    const alice = await person("alice");
    const streams = [await listen(alice), await listen(alice)];
    const reading = (async () => {
      for (let round = 0; round < 20; round++) {
        const { body } = await alice.get("/notifications?limit=1");
        expect(body.unreadCount).toBe(body.newest - body.readUpTo);
        const after = await alice.post("/notifications/read", { upTo: Math.max(body.newest - 1, 0) });
        expect(after.body.unreadCount).toBe(after.body.newest - after.body.readUpTo);
        expect(after.body.readUpTo).toBeGreaterThanOrEqual(body.readUpTo);
      }
    })();
    await followers(alice, 30);
    await reading;
    const all = Array.from({ length: 30 }, (_, index) => index + 1);
    for (const stream of streams) {
      await expect.poll(() => idsOf(stream), wait).toEqual(all);
      stream.close();
    }
    const { body } = await alice.get("/notifications?limit=100");
    expect(body.notifications.map(({ id }: { id: number }) => id)).toEqual(all.toReversed());
    expect((await alice.get("/notifications?limit=2&before=4")).body.notifications).toMatchObject([
      { id: 3 },
      { id: 2 },
    ]);
    expect((await alice.post("/notifications/read", { upTo: 12 })).body).toMatchObject({ newest: 30 });
    expect((await alice.post("/notifications/read", { upTo: 999 })).body).toMatchObject({
      readUpTo: 30,
      unreadCount: 0,
    });
    expect((await alice.post("/notifications/read", { upTo: 1 })).body).toMatchObject({
      readUpTo: 30,
      unreadCount: 0,
    });
  });

  it("forgets what is old, counts it as read, and gives no number again", async () => {
    const [alice, bob] = [await person("alice"), await person("bob")];
    await followers(alice, 4);
    await expect.poll(async () => (await alice.get("/notifications")).body.newest, wait).toBe(4);
    const { db } = conduit.app.context;
    const day = 24 * 60 * 60_000;
    const aliceId = (await conduit.app.context.sessions.load(alice.token as string))?.userId as string;
    for (const [number, days] of [
      [1, 91],
      [2, 92],
      [3, 89],
    ] as const) {
      await db
        .for(aliceId)
        .updateTable("notifications")
        .set({ created_at: new Date(Date.now() - days * day) })
        .where("user_id", "=", aliceId)
        .where("number", "=", number)
        .execute();
    }
    await db.home.transaction(async (tx) => tx.publish(oldNotificationsDue, {}));
    const ids = async () => (await alice.get("/notifications")).body.notifications.map(({ id }: { id: number }) => id);
    await expect.poll(ids, wait).toEqual([4, 3]);
    expect((await alice.get("/notifications")).body).toMatchObject({ newest: 4, readUpTo: 2, unreadCount: 2 });
    await bob.post(`/profiles/${await nameOf(alice)}/follow`);
    await expect.poll(ids, wait).toEqual([5, 4, 3]);
  });

  it("resumes after a lost connection with what was missed, by header and by address", async () => {
    const alice = await person("alice");
    await followers(alice, 2);
    const first = await listen(alice, "?lastEventId=0");
    await expect.poll(() => idsOf(first), wait).toEqual([1, 2]);
    first.close();
    await followers(alice, 3);
    await expect.poll(async () => (await alice.get("/notifications")).body.newest, wait).toBe(5);
    const [byHeader, byAddress] = [
      await listen(alice, "", { "last-event-id": first.lastEventId() }),
      await listen(alice, "?lastEventId=3"),
    ];
    await followers(alice, 1);
    await expect.poll(() => idsOf(byHeader), wait).toEqual([3, 4, 5, 6]);
    await expect.poll(() => idsOf(byAddress), wait).toEqual([4, 5, 6]);
    const ahead = await listen(alice, "?lastEventId=77");
    await expect.poll(() => ahead.events.map(({ event, id }) => [event, id]), wait).toEqual([["reset", "6"]]);
    for (const stream of [byHeader, byAddress, ahead]) stream.close();
  });

  it("tells of a tip and of videos, once each, and not of pictures", async () => {
    const [alice, bob] = [await person("alice"), await person("bob")];
    const [payeeId, payerId] = [await idOf(conduit, alice), await idOf(conduit, bob)];
    const { db, clock, random } = conduit.app.context;
    const upload = (purpose: string) => ({ ownerId: payeeId, uploadId: uuidV7(clock, random), purpose });
    const [video, broken] = [upload("video"), upload("video")];
    const tip = {
      tipId: uuidV7(clock, random),
      payerId,
      payeeId,
      amountMinor: 550,
      currency: "EUR",
      message: "Thanks",
    };
    for (let round = 0; round < 2; round++) {
      await db.for(payeeId).transaction(async (tx) => {
        tx.publish(tipCompleted, tip, { key: payeeId });
        tx.publish(uploadReady, upload("avatar"), { key: payeeId });
        tx.publish(uploadReady, video, { key: payeeId });
        tx.publish(uploadFailed, broken, { key: payeeId });
      });
    }
    const texts = async () =>
      (await alice.get("/notifications")).body.notifications.map(({ text }: { text: string }) => text).sort();
    await expect
      .poll(texts, wait)
      .toEqual([
        "Your video could not be processed.",
        "Your video is ready.",
        `${await nameOf(bob)} sent you a tip of €5.50: “Thanks”`,
      ]);
  });

  it("an open page gets also what was stored by a worker that died before it could send it", async () => {
    const [alice, bob] = [await person("alice"), await person("bob")];
    const [userId, actorId] = [await idOf(conduit, alice), await idOf(conduit, bob)];
    const stream = await listen(alice);
    const { db } = conduit.app.context;
    const notification = {
      userId,
      kind: "follow",
      actorId,
      subjectId: userId,
      details: "{}",
      now: new Date(),
    } as const;
    await db.for(userId).run(addNotification, notification);
    // The next try finds that it had committed.
    await createNotifications(conduit.app.context).tell(
      { attempt: 2, once: async () => undefined },
      userId,
      async () => {
        throw new Error("not run again");
      },
    );
    await expect.poll(() => idsOf(stream), wait).toEqual([1]);
    stream.close();
  });

  it("says nothing of one user to another, whatever they ask for", async () => {
    const [alice, bob] = [await person("alice"), await person("bob")];
    const [slug, aliceName, bobName] = [await publish(alice), await nameOf(alice), await nameOf(bob)];
    const aliceId = await idOf(conduit, alice);
    const streams = { alice: await listen(alice), bob: await listen(bob, `?topic=article:${slug}`) };
    await bob.post(`/profiles/${aliceName}/follow`);
    await expect.poll(() => told(streams.alice).length, wait).toBe(1);
    await alice.post(`/profiles/${bobName}/follow`);
    await expect.poll(() => told(streams.bob).length, wait).toBe(1);
    expect(told(streams.alice).map(({ text }) => text)).toEqual([`${bobName} follows you.`]);
    expect(told(streams.bob).map(({ text }) => text)).toEqual([`${aliceName} follows you.`]);
    expect((await bob.post("/notifications/read", { upTo: 1 })).body.unreadCount).toBe(0);
    expect((await alice.get("/notifications")).body.unreadCount).toBe(1);
    for (const topic of [`user:${aliceId}`, "user:*", "article:", "*", `article:${slug}\u0000`]) {
      const refused = await listen(bob, `?topic=${encodeURIComponent(topic)}`);
      expect(refused.status, topic).toBe(422);
    }
    expect((await listen(bob, `?topic=article:${slug}-not`)).status).toBe(404);
    expect((await listen(bob, `?x${"&topic=article:x".repeat(6)}`)).status).toBe(422);
    const anonymous = client(conduit.url);
    expect((await anonymous.get("/notifications")).status).toBe(401);
    expect((await anonymous.post("/notifications/read", { upTo: 1 })).status).toBe(401);
    expect((await openEventStream(`${conduit.url}/api/live`)).status).toBe(401);
    streams.alice.close();
    streams.bob.close();
  });

  it("refuses what it cannot read", async () => {
    const alice = await person("alice");
    for (const upTo of [-1, 1.5, "1", null, undefined, [], {}]) {
      expect((await alice.post("/notifications/read", { upTo })).status, String(upTo)).toBe(422);
    }
    expect((await alice.post("/notifications/read")).status).toBe(422);
    for (const query of ["limit=0", "limit=x", "before=-1", "before=1.5"]) {
      expect((await alice.get(`/notifications?${query}`)).status, query).toBe(422);
    }
    expect((await alice.get("/notifications?limit=9999&before=99999999999")).status).toBe(200);
    const head = await fetch(`${conduit.url}/api/live`, {
      method: "HEAD",
      headers: { authorization: `Token ${alice.token}` },
    });
    expect([head.status, await openStreams(conduit)]).toEqual([200, 0]);
  });

  it("tells an article's open pages of new comments, also its author's own", async () => {
    const [alice, bob] = [await person("alice"), await person("bob")];
    const slug = await publish(alice);
    const stream = await listen(bob, `?topic=article:${slug}`);
    await alice.post(`/articles/${slug}/comments`, { comment: { body: "One." } });
    await alice.post(`/articles/${slug}/comments`, { comment: { body: "Two." } });
    await expect.poll(() => stream.data("comment"), wait).toEqual([{ id: 1 }, { id: 2 }]);
    expect(stream.lastEventId()).toBe("0");
    stream.close();
  });

  it("ends the other sessions' streams when the password changes", async () => {
    const alice = await person("alice");
    const { username, email } = (await alice.get("/user")).body.user;
    const other = await client(conduit.url).post("/users/login", { user: { email, password: "correct horse" } });
    const [own, others] = [await listen(alice), await listen(client(conduit.url, other.body.user.token))];
    await alice.put("/user", { user: { password: "another horse" } });
    expect(await others.ended).toBe("ended");
    expect(others.data("end")).toEqual([{ reason: "revoked" }]);
    await (await person("bob")).post(`/profiles/${username}/follow`);
    await expect.poll(() => idsOf(own), wait).toEqual([1]);
    own.close();
  });
});

it("a stop ends open streams at once", async () => {
  const conduit = await startConduit();
  const alice = await registered(conduit.url, "alice");
  const stream = await openEventStream(`${conduit.url}/api/live`, { authorization: `Token ${alice.token}` });
  const since = performance.now();
  const stopped = conduit.stop();
  expect(await stream.ended).toBe("ended");
  expect(performance.now() - since).toBeLessThan(1_000);
  expect(stream.data("end")).toEqual([{ reason: "draining" }]);
  await stopped;
});

async function idOf(conduit: TestConduit, someone: Client): Promise<string> {
  const session = await conduit.app.context.sessions.load(someone.token ?? "");
  return session?.userId ?? "";
}
