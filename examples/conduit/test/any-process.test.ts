/**
 * Any request may land on any process: each step of a person's way is sent to another web process of a stack at rung 2, straight to its
 * own address, so that no balancer's luck can hide what one process keeps to itself.
 */
import { randomUUID } from "node:crypto";
import { openEventStream } from "@rungs/contract/event-stream-client";
import { seededRandom } from "rungs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Client, client, registered } from "./support/client.ts";
import { picture, untilState, upload } from "./support/media.ts";
import { chargesOf, ended, give, type PayingConduit, startPayingConduit, webhookOf } from "./support/payments.ts";
import { signUp } from "./ui/support/browserless.ts";
import { attributeOf, elementsOf } from "./ui/support/inspect.ts";

const wait = { timeout: 10_000, interval: 20 };
const userPerMinute = 1_200;
const userBurst = userPerMinute / 10;

describe("three processes at rung 2", () => {
  let conduit: PayingConduit;
  /** Addresses of the processes. */
  let at: readonly [string, string, string];
  let people = 0;

  beforeAll(async () => {
    conduit = await startPayingConduit({
      ...{ rung: 2, shards: 2, processes: 3 },
      settings: { web: { limits: { userPerMinute } } },
    });
    at = conduit.web.map(({ url }) => url) as [string, string, string];
    expect(new Set(at).size).toBe(3);
  });
  afterAll(() => conduit?.stop());

  const newName = (word: string) => `${word}${++people}`;
  const newPerson = (word: string) => registered(at[0], newName(word));
  /** The same person, talking to another process. */
  const via = (url: string, who: Client) => client(url, who.token);
  const everywhere = <R>(ask: (url: string) => Promise<R>) => Promise.all(at.map(ask));

  it("know a session that another one began, and no longer when a third has ended it", async () => {
    const name = newName("ann");
    const ann = await registered(at[0], name);
    const login = { user: { email: `${name}@example.com`, password: "correct horse" } };
    const second = client(at[1], (await client(at[1]).post("/users/login", login)).body.user.token);
    const statuses = (who: Client) => everywhere(async (url) => (await via(url, who).get("/user")).status);
    expect([await statuses(ann), await statuses(second)]).toEqual([
      [200, 200, 200],
      [200, 200, 200],
    ]);
    expect((await via(at[2], ann).put("/user", { user: { password: "another horse" } })).status).toBe(200);
    expect([await statuses(ann), await statuses(second)]).toEqual([
      [200, 200, 200],
      [401, 401, 401],
    ]);
  });

  it("count the failed sign-ins of an account together", async () => {
    const email = `${newName("bob")}@example.com`;
    await registered(at[0], `bob${people}`);
    const login = async (url: string, password: string) =>
      (await client(url).post("/users/login", { user: { email, password } })).status;
    for (let index = 0; index < 10; index++) expect(await login(at[index % 3] as string, "wrong horse")).toBe(401);
    expect(await everywhere((url) => login(url, "wrong horse"))).toEqual([429, 429, 429]);
    expect(await everywhere((url) => login(url, "correct horse"))).toEqual([429, 429, 429]);
  });

  it("count the guesses of one account together also when they come at once", async () => {
    const email = `${newName("bea")}@example.com`;
    await registered(at[0], `bea${people}`);
    const answers = await Promise.all(
      Array.from({ length: 24 }, (_, index) =>
        client(at[index % 3] as string).post("/users/login", { user: { email, password: `guess ${index}` } }),
      ),
    );
    expect(answers.filter(({ status }) => status === 401)).toHaveLength(10);
  });

  it("share the limit of requests of a user", async () => {
    const eager = await newPerson("eager");
    const since = performance.now();
    const answers = await Promise.all(
      Array.from({ length: 3 * userBurst }, (_, index) => via(at[index % 3] as string, eager).get("/user")),
    );
    const refilled = ((performance.now() - since) * userPerMinute) / 60_000;
    const allowed = answers.filter(({ status }) => status === 200).length;
    expect(allowed).toBeGreaterThan(userBurst / 2);
    expect(allowed).toBeLessThan(userBurst + refilled + 5);
    const refused = answers.find(({ status }) => status === 429);
    expect(Number(refused?.headers.get("retry-after"))).toBeGreaterThan(0);
  });

  it("send live events to the streams of each other, once each, in order", async () => {
    const name = newName("cleo");
    const cleo = await registered(at[0], name);
    const streams = await everywhere((url) =>
      openEventStream(`${url}/api/live`, { authorization: `Token ${cleo.token}` }),
    );
    for (let round = 0; round < 9; round++) {
      const fan = await newPerson("fan");
      expect((await via(at[round % 3] as string, fan).post(`/profiles/${name}/follow`)).status).toBe(200);
    }
    const numbers = [1, 2, 3, 4, 5, 6, 7, 8, 9];
    for (const stream of streams) {
      const ids = () => (stream.data("notification") as { id: number }[]).map(({ id }) => id);
      await expect.poll(ids, wait).toEqual(numbers);
      stream.close();
    }
  });

  it("take the form of a page that another one made, and refuse the token of another session", async () => {
    const [dora, evil] = [await signUp(at[0], newName("dora")), await signUp(at[0], newName("evil"))];
    const tokenOf = async (url: string, cookie: string) => {
      const html = await (await fetch(`${url}/editor`, { headers: { cookie } })).text();
      const field = elementsOf(html).find((element) => attributeOf(element, "name") === "_csrf");
      return (field && attributeOf(field, "value")) ?? "";
    };
    const post = (url: string, cookie: string, token: string) =>
      fetch(`${url}/editor`, {
        method: "POST",
        redirect: "manual",
        headers: { cookie },
        body: new URLSearchParams({ _csrf: token, title: "By form", description: "d", body: "b" }),
      });
    const [token, stolen] = [await tokenOf(at[1], dora.cookie), await tokenOf(at[1], evil.cookie)];
    expect(token).not.toBe("");
    expect(stolen).not.toBe(token);
    expect((await everywhere((url) => post(url, dora.cookie, token))).map(({ status }) => status)).toEqual([
      303, 303, 303,
    ]);
    expect((await everywhere((url) => post(url, dora.cookie, stolen))).map(({ status }) => status)).toEqual([
      403, 403, 403,
    ]);
  });

  it("show how far an upload is that another one took, live and when asked", async () => {
    const ed = await newPerson("ed");
    const stream = await openEventStream(`${at[2]}/api/live`, { authorization: `Token ${ed.token}` });
    const answer = await upload(at[0], ed, "image", await picture());
    expect(answer.status).toBe(202);
    const { id } = answer.body.upload;
    const done = await untilState(via(at[1], ed), id, "ready", "failed");
    expect(done.state).toBe("ready");
    const last = () => (stream.data("upload") as { id: string; state: string }[]).findLast((event) => event.id === id);
    await expect.poll(() => last()?.state, wait).toBe("ready");
    const files = await everywhere(async (url) => (await fetch(`${url}${done.media}`)).status);
    expect(files).toEqual([200, 200, 200]);
    stream.close();
  });

  it("make one tip of one key, whichever of them are asked at once", async () => {
    const [payer, payeeName] = [await newPerson("fay"), newName("gus")];
    await registered(at[1], payeeName);
    const key = randomUUID();
    const answers = await Promise.all(
      Array.from({ length: 30 }, (_, index) =>
        give(via(at[index % 3] as string, payer), payeeName, { amount: 300 }, key),
      ),
    );
    expect(new Set(answers.map(({ status, body }) => `${status} ${body.tip.id}`)).size).toBe(1);
    const [{ id } = { id: "" }] = answers.map(({ body }) => body.tip as { id: string });
    expect((await ended(via(at[2], payer), id)).state).toBe("succeeded");
    expect((await chargesOf(conduit.provider)).filter((charge) => charge.key === id)).toHaveLength(1);
  });

  const seed = Number(process.env["RUNGS_TEST_SEED"] ?? Date.now() % 1_000_000);
  it(`show people what they wrote through another one, every time (seed ${seed})`, async () => {
    const random = seededRandom(seed);
    const anyOf = () => at[Math.floor(random.next() * 3)] as string;
    let stale = 0;
    let reads = 0;
    const writers = await Promise.all(Array.from({ length: 8 }, () => newPerson("hal")));
    await Promise.all(
      writers.map(async (writer, index) => {
        const article = { title: `Mine ${index}`, description: "0", body: "b", tagList: [`own${index}`] };
        const { slug } = (await via(anyOf(), writer).post("/articles", { article })).body.article;
        for (let round = 1; round <= 25; round++) {
          const change = { article: { description: `${round}` } };
          expect((await via(anyOf(), writer).put(`/articles/${slug}`, change)).status).toBe(200);
          const [one, list] = [
            await via(anyOf(), writer).get(`/articles/${slug}`),
            await via(anyOf(), writer).get(`/articles?tag=own${index}`),
          ];
          reads += 2;
          if (one.body.article.description !== `${round}`) stale++;
          if (list.body.articles[0]?.description !== `${round}`) stale++;
        }
      }),
    );
    expect(reads).toBe(8 * 25 * 2);
    expect(stale).toBe(0);
  });

  it("stop at once also after a body that was refused unread", async () => {
    const statuses = await everywhere(async (url) => {
      const body = "x".repeat(300_000);
      return (await fetch(webhookOf({ url }), { method: "POST", body, headers: { "payment-signature": "t=1,v1=00" } }))
        .status;
    });
    expect(statuses).toEqual([413, 413, 413]);
    const since = performance.now();
    await conduit.stop();
    expect(performance.now() - since).toBeLessThan(15_000);
  });
});
