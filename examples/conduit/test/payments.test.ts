/** Tips from end to end against the real app, its databases and the fake provider, at every rung, on one shard and on several. */
import { randomUUID } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { seededRandom } from "rungs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type StartedFakeProvider, startFakeProvider } from "../src/payments/fake-provider/start.ts";
import { type Answer, type Client, client, registered } from "./support/client.ts";
import { startConduit } from "./support/conduit.ts";
import {
  balanceOf,
  chargesOf,
  ended,
  faultsOf,
  give,
  notify,
  type PayingConduit,
  quickFlags,
  reconcile,
  startPayingConduit,
  until,
  webhookOf,
} from "./support/payments.ts";
import { targets } from "./support/rungs.ts";

let people = 0;

const places = targets([{ shards: 3, cache: "on" }], { rungs: [5], more: [{ shards: 1, cache: "on" }] });

describe.each(places)("tips at $title", (target) => {
  let conduit: PayingConduit;
  let ann: Client;
  let bob: Client;
  let bobName: string;

  /** Two people nobody knows of yet. */
  async function strangers() {
    const [payer, payee] = [`payer${++people}`, `payee${people}`];
    return {
      payer: await registered(conduit.url, payer),
      payee: await registered(conduit.url, payee),
      payeeName: payee,
      payerName: payer,
    };
  }
  const chargesUnder = async (key: string) =>
    (await chargesOf(conduit.provider)).filter((charge) => charge.key === key);

  beforeAll(async () => {
    conduit = await startPayingConduit(target);
    bobName = "bob";
    ann = await registered(conduit.url, "ann");
    bob = await registered(conduit.url, bobName);
  }, 120_000);
  afterAll(() => conduit?.stop());

  it("answers 202 with an address of the state, then charges, books and pays out the rest after the fee", async () => {
    const { payer, payee, payeeName, payerName } = await strangers();
    const answer = await give(payer, payeeName, { amount: 500, message: " Well written! " });
    expect(answer.status).toBe(202);
    const { tip } = answer.body;
    expect(tip).toMatchObject({ state: "requested", amount: 500, currency: "EUR", message: "Well written!" });
    expect(tip.to.username).toBe(payeeName);
    expect(answer.headers.get("location")).toBe(`/api/tips/${tip.id}`);
    expect(tip.statusUrl).toBe(`/api/tips/${tip.id}`);
    expect(await ended(payer, tip.id)).toMatchObject({ state: "succeeded", reason: null });
    expect(await balanceOf(payee, 475)).toBe(475);
    expect((await payer.get("/tips")).body.tips.map(({ id }: { id: string }) => id)).toEqual([tip.id]);
    expect((await payee.get("/tips/received")).body.tips).toMatchObject([
      { id: tip.id, amount: 500, fee: 25, message: "Well written!", from: { username: payerName } },
    ]);
    const { body } = await until(
      () => payee.get("/notifications"),
      (found) => found.body.notifications.length > 0,
    );
    expect(body.notifications).toMatchObject([
      { kind: "tip", actor: { username: payerName }, details: { amountMinor: 500, currency: "EUR" } },
    ]);
    expect(await faultsOf(conduit)).toEqual([]);
  });

  it("makes one tip and one charge of 100 parallel requests under one key", async () => {
    const { payer, payee, payeeName } = await strangers();
    const key = randomUUID();
    const all = await Promise.all(Array.from({ length: 100 }, () => give(payer, payeeName, { amount: 200 }, key)));
    expect(new Set(all.map(({ status }) => status))).toEqual(new Set([202]));
    expect(new Set(all.map(({ body }) => JSON.stringify(body))).size).toBe(1);
    expect(all.filter(({ headers }) => headers.get("idempotency-replayed") === "true")).toHaveLength(99);
    const { id } = (all[0] as Answer).body.tip;
    await ended(payer, id);
    expect(await balanceOf(payee, 190)).toBe(190);
    expect((await payer.get("/tips")).body.tips).toHaveLength(1);
    expect(await chargesUnder(id)).toHaveLength(1);
  });

  it("refuses a key that was used for another tip, a missing one and a malformed one, and charges nothing", async () => {
    const { payer, payeeName } = await strangers();
    const key = randomUUID();
    const { id } = (await give(payer, payeeName, { amount: 100 }, key)).body.tip;
    for (const other of [{ amount: 101 }, { amount: 100, currency: "USD" }, { amount: 100, message: "other" }]) {
      expect((await give(payer, payeeName, other, key)).status).toBe(422);
    }
    const without = await payer.post(`/profiles/${payeeName}/tips`, { tip: { amount: 100, currency: "EUR" } });
    expect([without.status, Object.keys(without.body.errors)]).toEqual([400, ["Idempotency-Key"]]);
    expect((await give(payer, payeeName, { amount: 100 }, "two words")).status).toBe(400);
    expect((await payer.get("/tips")).body.tips.map((tip: { id: string }) => tip.id)).toEqual([id]);
  });

  it.each([
    ["no amount", { currency: "EUR" }, ["amount"]],
    ["nothing", { amount: 0, currency: "EUR" }, ["amount"]],
    ["too much", { amount: 100_001, currency: "EUR" }, ["amount"]],
    ["a fraction", { amount: 1.5, currency: "EUR" }, ["amount"]],
    ["text as amount", { amount: "500", currency: "EUR" }, ["amount"]],
    ["an unknown currency", { amount: 500, currency: "XXX" }, ["currency"]],
    ["a long message", { amount: 500, currency: "EUR", message: "x".repeat(281) }, ["message"]],
  ])("refuses %s", async (_, tip, fields) => {
    const headers = { "idempotency-key": randomUUID() };
    const answer = await ann.post(`/profiles/${bobName}/tips`, { tip }, headers);
    expect([answer.status, Object.keys(answer.body.errors)]).toEqual([422, fields]);
  });

  it("answers whatever is sent with a 202 or a clear 4xx, and makes a tip of the former only", async () => {
    const { payer, payeeName } = await strangers();
    const value = fc.oneof(
      fc.constantFrom<unknown>("EUR", "eur", 100, 1e9, -1, null, "\u0000", "\ud800", "__proto__", [], {}),
      fc.jsonValue({ maxDepth: 2 }),
      fc.string({ unit: "binary" }),
    );
    const fields = fc.record({ amount: value, currency: value, message: value }, { requiredKeys: [] });
    const key = fc.oneof(fc.uuid(), fc.stringMatching(/^[\x20-\x7e]{1,300}$/), fc.constant(""));
    const taken: string[] = [];
    await fc.assert(
      fc.asyncProperty(fc.oneof(fields, value), key, async (tip, idempotencyKey) => {
        const headers = { "idempotency-key": idempotencyKey };
        const { status, body } = await payer.post(`/profiles/${payeeName}/tips`, { tip }, headers);
        expect([202, 400, 422]).toContain(status);
        if (status === 202) taken.push(body.tip.id);
        else expect(Object.keys(body.errors).length).toBeGreaterThan(0);
      }),
      { numRuns: 150 },
    );
    const listed = (await payer.get("/tips?limit=100")).body.tips.map(({ id }: { id: string }) => id);
    expect([...listed].sort()).toEqual([...new Set(taken)].sort());
  });

  it("refuses tips to oneself and to nobody", async () => {
    expect((await give(bob, bobName, { amount: 100 })).status).toBe(422);
    expect((await give(bob, "nobody-here", { amount: 100 })).status).toBe(404);
  });

  it("ends as declined when the provider declines, and books nothing", async () => {
    const { payer, payee, payeeName } = await strangers();
    const { id } = (await give(payer, payeeName, { amount: 513 })).body.tip;
    expect(await ended(payer, id)).toMatchObject({ state: "declined", reason: "insufficient_funds" });
    expect((await payee.get("/balance")).body.balances).toEqual([]);
  });

  it("ends as failed when the provider refuses the charge", async () => {
    const { payer, payeeName } = await strangers();
    const { id } = (await give(payer, payeeName, { amount: 537 })).body.tip;
    expect(await ended(payer, id)).toMatchObject({ state: "failed", reason: "account_restricted" });
    expect(await chargesUnder(id)).toEqual([]);
  });

  it.each([
    ["never answers after charging", 517],
    ["answers 500 after charging", 519],
    ["answers 500 before charging", 523],
    ["breaks the connection after charging", 527],
    ["charges later", 529],
  ])("charges once and pays once when the provider %s", async (_, amount) => {
    const { payer, payee, payeeName } = await strangers();
    const { id } = (await give(payer, payeeName, { amount })).body.tip;
    expect((await ended(payer, id)).state).toBe("succeeded");
    expect(await balanceOf(payee, amount - 25 - (amount >= 520 ? 1 : 0))).toBeGreaterThan(0);
    expect(await chargesUnder(id)).toHaveLength(1);
  });

  it("ends as declined when a pending charge is declined later", async () => {
    const { payer, payeeName } = await strangers();
    const { id } = (await give(payer, payeeName, { amount: 531 })).body.tip;
    expect(await ended(payer, id)).toMatchObject({ state: "declined", reason: "do_not_honor" });
  });

  it("shows a tip to its payer only", async () => {
    const { payer, payee, payeeName } = await strangers();
    const { id } = (await give(payer, payeeName, { amount: 100 })).body.tip;
    const asked = async (who: Client) => (await who.get(`/tips/${id}`)).status;
    expect(await asked(payer)).toBe(200);
    for (const other of [payee, ann, bob]) expect(await asked(other)).toBe(404);
    expect(await asked(client(conduit.url))).toBe(401);
    expect((await ann.get("/tips")).body.tips).not.toContainEqual(expect.objectContaining({ id }));
    for (const path of ["/tips", "/tips/received", "/balance"]) {
      expect((await client(conduit.url).get(path)).status).toBe(401);
    }
    for (const id of ["x", "%00", randomUUID(), `${randomUUID()}x`]) {
      // nginx refuses a zero byte before the app sees it.
      expect((await payer.get(`/tips/${id}`)).status).toBe(id === "%00" && target.rung > 1 ? 400 : 404);
    }
  });

  it("keeps two users' tips, keys and balances apart, in both directions at once", async () => {
    const { payer: one, payee: two, payerName, payeeName } = await strangers();
    const key = randomUUID();
    const [there, back] = await Promise.all([
      give(one, payeeName, { amount: 1_000 }, key),
      give(two, payerName, { amount: 2_000 }, key),
    ]);
    expect(there.body.tip.id).not.toBe(back.body.tip.id);
    await Promise.all([balanceOf(two, 950), balanceOf(one, 1_900)]);
    expect((await one.get(`/tips/${back.body.tip.id}`)).status).toBe(404);
    expect((await two.get(`/tips/${there.body.tip.id}`)).status).toBe(404);
  });

  it("pages lists by the last id", async () => {
    const { payer, payeeName } = await strangers();
    const ids: string[] = [];
    for (let count = 1; count <= 3; count++) ids.unshift((await give(payer, payeeName, { amount: count })).body.tip.id);
    const page = async (query: string) =>
      (await payer.get(`/tips${query}`)).body.tips.map((tip: { id: string }) => tip.id);
    expect(await page("?limit=2")).toEqual(ids.slice(0, 2));
    expect(await page(`?limit=2&before=${ids[1]}`)).toEqual(ids.slice(2));
    expect((await payer.get("/tips?before=x")).status).toBe(422);
    expect((await payer.get("/tips?limit=x")).status).toBe(422);
  });

  it("believes no notice: duplicate, late, reordered, invented and replayed ones change nothing", async () => {
    const { payer, payee, payeeName } = await strangers();
    const { id } = (await give(payer, payeeName, { amount: 400 })).body.tip;
    await ended(payer, id);
    const [charge] = await chargesUnder(id);
    const payerId = await userIdOf(payer);
    const notice = (type: string, eventId: string) => ({
      id: eventId,
      type,
      charge: { id: charge?.id, metadata: { tip_id: id, payer_id: payerId } },
    });
    const once = notice("charge.succeeded", "evt_1");
    const statuses = await Promise.all(Array.from({ length: 20 }, () => notify(conduit, once)));
    expect(new Set(statuses)).toEqual(new Set([204]));
    expect(await notify(conduit, notice("charge.declined", "evt_2"))).toBe(204);
    expect(await notify(conduit, notice("charge.pending", "evt_3"))).toBe(204);
    await balanceOf(payee, 380);
    expect((await payer.get(`/tips/${id}`)).body.tip.state).toBe("succeeded");
    expect(await noticesOf(payerId)).toEqual(expect.arrayContaining(["evt_1", "evt_2", "evt_3"]));
    // Not about a tip of ours: taken, and forgotten.
    for (const other of [
      { id: "evt_x" },
      { id: "evt_y", charge: { id: "c", metadata: { tip_id: "'", payer_id: "x" } } },
    ]) {
      expect(await notify(conduit, other)).toBe(204);
    }
  });

  it("refuses notices that are not the provider's or not fresh", async () => {
    const { payer, payeeName } = await strangers();
    const { id } = (await give(payer, payeeName, { amount: 300 })).body.tip;
    const payerId = await userIdOf(payer);
    const forged = { id: "evt_forged", charge: { id: "ch_x", metadata: { tip_id: id, payer_id: payerId } } };
    expect(await notify(conduit, forged, { secret: "not the provider's secret" })).toBe(400);
    expect(await notify(conduit, forged, { ageMs: 6 * 60_000 })).toBe(400);
    expect(await notify(conduit, forged, { ageMs: -6 * 60_000 })).toBe(400);
    for (const header of ["", "t=1", "v1=00", "t=x,v1=y", `t=${Math.floor(Date.now() / 1000)},v1=${"0".repeat(64)}`]) {
      expect(await notify(conduit, forged, { header })).toBe(400);
    }
    expect(await notify(conduit, "x".repeat(300_000))).toBe(413);
    expect(await noticesOf(payerId)).not.toContain("evt_forged");
    const bare = await fetch(webhookOf(conduit), { method: "POST", body: JSON.stringify(forged) });
    expect(bare.status).toBe(400);
  });

  it("balances when all is done", async () => {
    const tipsIn = async (...states: ("requested" | "charging" | "succeeded")[]) =>
      conduit.payments.everywhere((shard) =>
        shard.selectFrom("tips").select("tip_id").where("state", "in", states).execute(),
      );
    await until(
      () => tipsIn("requested", "charging"),
      (underWay) => underWay.length === 0,
    );
    await until(
      () => faultsOf(conduit),
      (faults) => faults.length === 0,
    );
    const succeeded = (await tipsIn("succeeded")).map(({ tip_id }) => tip_id);
    const charged = (await chargesOf(conduit.provider)).filter(({ status }) => status === "succeeded");
    expect(succeeded.length).toBeGreaterThan(10);
    expect(succeeded.sort()).toEqual(charged.map(({ key }) => key).sort());
  });

  async function userIdOf(user: Client): Promise<string> {
    const { username } = (await user.get("/user")).body.user;
    const [row] = await conduit.app.context.db.everywhere((shard) =>
      shard.selectFrom("users").select("user_id").where("username", "=", username).execute(),
    );
    return row?.user_id ?? "";
  }

  async function noticesOf(payerId: string): Promise<string[]> {
    const shard = conduit.payments.for(payerId);
    const rows = await shard
      .selectFrom("payment_notices")
      .select("notice_id")
      .where("payer_id", "=", payerId)
      .execute();
    return rows.map(({ notice_id }) => notice_id);
  }
});

describe("a provider that is down", () => {
  it("costs nothing but time: tips wait, and end when it is back with all it had acknowledged", async () => {
    const dataFolder = await mkdtemp(join(tmpdir(), "conduit-provider-"));
    const conduit = await startPayingConduit({ shards: 2, provider: { dataFolder, flags: quickFlags } });
    try {
      const payer = await registered(conduit.url, "payer");
      const payee = await registered(conduit.url, "payee");
      const before = (await give(payer, "payee", { amount: 1_000 })).body.tip;
      await ended(payer, before.id);
      await conduit.provider.stop("SIGKILL");
      const started = Date.now();
      const during = await give(payer, "payee", { amount: 2_000 });
      expect(during.status).toBe(202);
      expect(Date.now() - started).toBeLessThan(2_000);
      const { id } = during.body.tip;
      await until(
        () => payer.get(`/tips/${id}`),
        ({ body }) => body.tip.state === "charging",
      );
      const back = await startFakeProvider({ dataFolder, flags: quickFlags, settings: conduit.provider.settings });
      try {
        await reconcile(conduit);
        expect((await ended(payer, id)).state).toBe("succeeded");
        await balanceOf(payee, 2_850);
        expect((await chargesOf(back)).map(({ key }) => key)).toEqual([before.id, id]);
        expect(await faultsOf(conduit)).toEqual([]);
      } finally {
        await back.stop();
      }
    } finally {
      await conduit.stop();
      await rm(dataFolder, { recursive: true, force: true });
    }
  }, 60_000);

  it("is no error when there is none: tips are not offered, and everything else works", async () => {
    const conduit = await startConduit();
    try {
      const payer = await registered(conduit.url, "payer");
      await registered(conduit.url, "payee");
      expect((await give(payer, "payee", { amount: 100 })).status).toBe(404);
      expect((await payer.get("/tips")).body).toEqual({ tips: [] });
      expect((await fetch(webhookOf(conduit), { method: "POST", body: "{}" })).status).toBe(404);
    } finally {
      await conduit.stop();
    }
  }, 60_000);
});

describe("a provider that does everything wrong", () => {
  const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 1_000_000);

  it(`charges each tip once, books each to the cent and ends all of them (seed ${seed})`, async () => {
    const shares = { error: 0.2, silent: 0.05, reset: 0.1, pending: 0.2, duplicate: 0.5, late: 0.3, decline: 0.1 };
    const flags = Object.entries(shares).flatMap(([name, share]) => [`--${name}-share`, String(share)]);
    const calm = ["--delay-ms", "10", "--notice-delay-ms", "30", "--seed", String(seed)];
    const conduit = await startPayingConduit({ shards: 3, provider: { flags: [...calm, ...flags] } });
    try {
      const random = seededRandom(seed);
      const below = (bound: number) => Math.floor(random.next() * bound);
      const users = await Promise.all(Array.from({ length: 6 }, (_, index) => registered(conduit.url, `user${index}`)));
      const wishes = Array.from({ length: 150 }, () => {
        const from = below(6);
        return { from, to: (from + 1 + below(5)) % 6, amount: 1 + below(100_000), key: `key-${below(120)}-${from}` };
      });
      const answers = await Promise.all(
        wishes.map(({ from, to, amount, key }) => give(users[from] as Client, `user${to}`, { amount }, key)),
      );
      const taken = new Set(answers.flatMap(({ status, body }) => (status === 202 ? [body.tip.id as string] : [])));
      const { db } = conduit.app.context;
      const tipsNow = () => db.everywhere((shard) => shard.selectFrom("tips").select(["tip_id", "state"]).execute());
      let looks = 0;
      const tips = await until(
        async () => {
          if (looks++ % 10 === 0) await reconcile(conduit);
          return tipsNow();
        },
        (rows) => rows.every(({ state }) => !["requested", "charging"].includes(state)),
        // Silent calls take their whole time limit, and on a loaded machine all of it takes several times as long.
        150_000,
      );
      await until(
        () => faultsOf(conduit),
        (faults) => faults.length === 0,
      );
      const charges = await chargesOf(conduit.provider);
      expect(new Set(tips.map(({ tip_id }) => tip_id))).toEqual(taken);
      expect(charges.map(({ key }) => key).sort()).toEqual([...taken].sort());
      const ends = new Map(charges.map(({ key, status }) => [key, status]));
      for (const { tip_id, state } of tips) expect([tip_id, state]).toEqual([tip_id, ends.get(tip_id)]);
    } finally {
      await conduit.stop();
    }
  }, 240_000);
});

describe("the reconciliation", () => {
  it("finds out what no notice ever told", async () => {
    // Notices go nowhere, and the answer is lost after the charge.
    const conduit = await startPayingConduit();
    try {
      await conduit.provider.client.registerWebhook("http://127.0.0.1:9/nowhere");
      const payer = await registered(conduit.url, "payer");
      const payee = await registered(conduit.url, "payee");
      const { id } = (await give(payer, "payee", { amount: 529 })).body.tip;
      await until(
        () => payer.get(`/tips/${id}`),
        ({ body }) => body.tip.state === "charging",
      );
      const found = await until(
        async () => {
          await reconcile(conduit);
          return (await payer.get(`/tips/${id}`)).body.tip;
        },
        (tip) => tip.state === "succeeded",
      );
      expect(found.id).toBe(id);
      await balanceOf(payee, 503);
      expect(await faultsOf(conduit)).toEqual([]);
    } finally {
      await conduit.stop();
    }
  }, 60_000);

  it("never charges a tip that is older than the life of the provider's key", async () => {
    const conduit = await startPayingConduit();
    const { settings } = conduit.provider;
    let back: StartedFakeProvider | undefined;
    try {
      await conduit.provider.stop("SIGKILL");
      const payer = await registered(conduit.url, "payer");
      await registered(conduit.url, "payee");
      const { id } = (await give(payer, "payee", { amount: 1_000 })).body.tip;
      await until(
        () => payer.get(`/tips/${id}`),
        ({ body }) => body.tip.state === "charging",
      );
      // As after an outage of a day: the first call may have charged, and its key may be forgotten.
      const dayAgo = new Date(Date.now() - 24 * 60 * 60 * 1_000);
      await conduit.app.context.db.everywhere((shard) =>
        shard.updateTable("tips").set({ created_at: dayAgo }).where("tip_id", "=", id).returning("tip_id").execute(),
      );
      back = await startFakeProvider({ flags: quickFlags, settings });
      expect(await ended(payer, id)).toMatchObject({ state: "failed", reason: "never_charged" });
      expect(await chargesOf(back)).toEqual([]);
    } finally {
      await conduit.stop();
      await back?.stop();
    }
  }, 60_000);

  it("forgets notices after a month, and no sooner", async () => {
    const conduit = await startPayingConduit({ shards: 2 });
    try {
      const { db } = conduit.app.context;
      const days = (count: number) => new Date(Date.now() - count * 24 * 60 * 60 * 1_000);
      const rows = [1, 2, 3, 4].flatMap((person) => {
        const payer_id = `00000000-0000-7000-8000-00000000000${person}`;
        return [31, 29].map((age) => ({ payer_id, notice_id: `evt_${age}`, received_at: days(age) }));
      });
      for (const row of rows) await db.for(row.payer_id).insertInto("payment_notices").values(row).execute();
      const left = () => db.everywhere((shard) => shard.selectFrom("payment_notices").select("notice_id").execute());
      await reconcile(conduit);
      const kept = await until(left, (notices) => notices.length <= 4);
      expect(kept.map(({ notice_id }) => notice_id)).toEqual(Array.from({ length: 4 }, () => "evt_29"));
    } finally {
      await conduit.stop();
    }
  }, 60_000);
});
