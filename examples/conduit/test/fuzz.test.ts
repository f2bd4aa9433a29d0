/**
 * Bad input: whatever is sent to any route, the answer is a clear 4xx or a proper success, never a 500, and an error says
 * in RealWorld's shape what was wrong. Nothing of a refused request is stored.
 */
import { readFile } from "node:fs/promises";
import { Ajv, type ValidateFunction } from "ajv";
import formats from "ajv-formats";
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { type Client, client, registered } from "./support/client.ts";
import { startConduit, type TestConduit } from "./support/conduit.ts";
import { type Operation, operations } from "./support/operations.ts";

const runs = Number(process.env["FUZZ_RUNS"] ?? 60);
const nasty = [
  "",
  " ",
  "\u0000",
  "\ud800",
  "'; drop table users; --",
  '" or 1=1 --',
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "../../etc/passwd",
  "%00",
  "%2e%2e%2f",
  "{{7*7}}",
  "$1",
  "__proto__",
  "constructor",
  "feed",
  "\u202e\u0301\ufeff",
  "a".repeat(70_000),
  "😀".repeat(300),
];

describe("bad input", () => {
  let conduit: TestConduit;
  let ann: Client;

  beforeAll(async () => {
    conduit = await startConduit({ shards: 2 });
    ann = await registered(conduit.url, "ann");
    await ann.post("/articles", { article: { title: "Target", description: "d", body: "b", tagList: ["t"] } });
    await ann.post("/articles/target/comments", { comment: { body: "c" } });
  });
  afterAll(() => conduit.stop());

  const text = fc.oneof(fc.constantFrom(...nasty), fc.string({ unit: "binary" }), fc.string());
  const json = fc.oneof(text, fc.jsonValue({ maxDepth: 3 }), fc.double(), fc.array(text), fc.constant(null));
  /** Segments that make a path of another operation: the feed, and what a client resolves before it sends. */
  const otherRoutes = new Set(["", "feed", ".", ".."]);
  const segment = fc
    .oneof(fc.constantFrom("target", "ann", "1", "0", "-1", "99999999999"), text)
    .filter((part) => !otherRoutes.has(part));

  async function send(
    operation: Operation,
    request: Request,
  ): Promise<{ status: number; text: string; headers: Headers }> {
    const path = operation.path.replace(/:\w+/g, () => encode(request.segments.shift() ?? "x"));
    const query = request.query.map(([name, value]) => `${encode(name)}=${encode(value)}`).join("&");
    const response = await fetch(`${conduit.url}/api${path}?${query}`, {
      method: operation.method,
      headers: {
        ...(request.hasToken ? { authorization: `Token ${ann.token}` } : {}),
        ...(request.body === undefined ? {} : { "content-type": "application/json" }),
      },
      ...(request.body === undefined || operation.method === "GET" ? {} : { body: request.body }),
    });
    return { status: response.status, text: await response.text(), headers: response.headers };
  }

  interface Request {
    readonly segments: string[];
    readonly query: (readonly [string, string])[];
    readonly body: string | undefined;
    readonly hasToken: boolean;
  }

  const requestFor = (operation: Operation): fc.Arbitrary<Request> =>
    fc.record({
      segments: fc.array(segment, { minLength: 2, maxLength: 2 }),
      query: fc.array(fc.tuple(fc.oneof(fc.constantFrom(...(operation.query ?? ["x"])), text), text), { maxLength: 4 }),
      body: bodyFor(operation),
      hasToken: fc.boolean(),
    });

  const bodyFor = (operation: Operation): fc.Arbitrary<string | undefined> => {
    const { body } = operation;
    const any = json.map((value) => JSON.stringify(value));
    if (body === undefined) return fc.option(any, { nil: undefined });
    const fields = Object.fromEntries(body.fields.map((field) => [field, json]));
    const shaped = fc.record(fields, { requiredKeys: [] }).map((value) => JSON.stringify({ [body.name]: value }));
    return fc.oneof(
      { weight: 6, arbitrary: shaped },
      { weight: 1, arbitrary: any },
      { weight: 1, arbitrary: fc.string() },
    );
  };

  it.each(operations.map((operation) => [`${operation.method} ${operation.path}`, operation] as const))(
    "%s answers anything with a success or a clear 4xx",
    { timeout: 120_000 },
    async (_name, operation) => {
      const contract = await contractOf(operation);
      await fc.assert(
        fc.asyncProperty(requestFor(operation), async (request) => {
          const { status, text: answer } = await send(operation, { ...request, segments: [...request.segments] });
          expect(status, answer.slice(0, 300)).toBeLessThan(500);
          if (status >= 400) expectProblem(status, answer);
          else contract?.(status, answer);
        }),
        { numRuns: runs },
      );
      // PUT /user may have signed out nobody and renamed nobody; ann must still be there for the next operation.
      expect((await ann.get("/user")).status).toBe(200);
    },
  );

  it("refuses malformed bodies of every kind in plain words, and stores nothing of them", async () => {
    const headers = { authorization: `Token ${ann.token}`, "content-type": "application/json" };
    const before = (await ann.get("/articles")).body.articlesCount;
    const cases: [string, string | Uint8Array<ArrayBuffer>, Record<string, string>, number][] = [
      ["truncated JSON", '{"article":', headers, 400],
      ["broken UTF-8", new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), headers, 400],
      [
        "prototype poisoning",
        '{"article":{"title":"t","description":"d","body":"b","__proto__":{"x":1}}}',
        headers,
        400,
      ],
      [
        "10 MB",
        JSON.stringify({ article: { title: "t", description: "d", body: "b".repeat(10_000_000) } }),
        headers,
        413,
      ],
      ["another content type", "<article/>", { ...headers, "content-type": "application/xml" }, 415],
      ["a list instead of an object", "[]", headers, 422],
      ["no wrapper", '{"title":"t","description":"d","body":"b"}', headers, 422],
      [
        "overlong title",
        JSON.stringify({ article: { title: "t".repeat(201), description: "d", body: "b" } }),
        headers,
        422,
      ],
      [
        "half valid",
        JSON.stringify({ article: { title: "Half", description: "d", body: "b", tagList: ["ok", 7] } }),
        headers,
        422,
      ],
    ];
    for (const [name, body, sent, status] of cases) {
      const response = await fetch(`${conduit.url}/api/articles`, { method: "POST", headers: sent, body });
      expect([name, response.status]).toEqual([name, status]);
      expectProblem(response.status, await response.text());
    }
    expect((await ann.get("/articles")).body.articlesCount).toBe(before);
  });

  it("names each bad field in words", async () => {
    const answer = await ann.post("/articles", { article: { title: "  ", body: 7, tagList: "x" } });
    expect([answer.status, answer.body]).toEqual([
      422,
      {
        errors: {
          title: ["can't be blank"],
          description: ["can't be blank"],
          body: ["must be of type string"],
          tagList: ["must be a list of texts"],
        },
      },
    ]);
    expect((await ann.get("/articles?limit=0")).body).toEqual({
      errors: { limit: ["must be an integer of at least 1"] },
    });
    expect((await ann.get("/articles?limit=abc&offset=-1")).status).toBe(422);
    expect((await ann.get("/articles?limit=1000")).status).toBe(200);
  });

  it("accepts an empty body declared as JSON where none is needed, as many clients send it", async () => {
    const { slug } = (await ann.post("/articles", { article: { title: "Likeable", description: "d", body: "b" } })).body
      .article;
    for (const method of ["POST", "DELETE"]) {
      const response = await fetch(`${conduit.url}/api/articles/${slug}/favorite`, {
        method,
        headers: { authorization: `Bearer ${ann.token}`, "content-type": "application/json" },
      });
      expect(response.status).toBe(200);
    }
  });

  it("stores what looks like SQL or HTML as the plain text it is", async () => {
    for (const words of ["'; drop table users; --", "<script>alert(1)</script>", "\\x27 || 'a'", "${7*7}"]) {
      const { body } = await ann.post("/articles", {
        article: { title: words, description: words, body: words, tagList: [words] },
      });
      const read = (await client(conduit.url).get(`/articles/${body.article.slug}`)).body.article;
      expect([read.title, read.description, read.body, read.tagList]).toEqual([words, words, words, [words]]);
      expect((await client(conduit.url).get(`/articles?tag=${encodeURIComponent(words)}`)).body.articlesCount).toBe(1);
    }
  });
});

function encode(value: string): string {
  return encodeURIComponent(value.toWellFormed()).slice(0, 6_000);
}

function expectProblem(status: number, answer: string): void {
  expect([400, 401, 403, 404, 409, 413, 414, 415, 422, 429, 431]).toContain(status);
  const { errors } = JSON.parse(answer);
  expect(Object.keys(errors).length).toBeGreaterThan(0);
  for (const messages of Object.values<unknown[]>(errors)) {
    expect(messages.length).toBeGreaterThan(0);
    for (const message of messages) expect(message).toEqual(expect.any(String));
  }
}

/**
 * The published contract of the API, when its OpenAPI file is beside the checkout: successes must satisfy the documented
 * schema. Elsewhere only the shapes above are checked.
 */
async function contractOf(operation: Operation): Promise<((status: number, answer: string) => void) | undefined> {
  if (operation.isOwn) return undefined;
  const file = await readFile(new URL("../../../../shared/realworld/openapi.yml", import.meta.url), "utf8").catch(
    () => undefined,
  );
  if (file === undefined) return undefined;
  const document = parse(file);
  const template = operation.path.replace(/:(\w+)/g, "{$1}");
  const { responses } = document.paths[template][operation.method.toLowerCase()];
  const ajv = new Ajv({ strict: false });
  formats.default(ajv);
  ajv.addSchema(document, "api");
  const validators = new Map<number, ValidateFunction>();
  for (const [status, reference] of Object.entries<{ $ref: string }>(responses)) {
    const name = reference.$ref.split("/").pop() as string;
    if (document.components.responses[name].content["application/json"] === undefined) continue;
    validators.set(
      Number(status),
      ajv.compile({ $ref: `api#/components/responses/${name}/content/application~1json/schema` }),
    );
  }
  return (status, answer) => {
    expect(Object.keys(responses)).toContain(String(status));
    const validate = validators.get(status);
    if (validate === undefined) return expect(answer).toBe("");
    expect(validate(JSON.parse(answer)), JSON.stringify(validate.errors)).toBe(true);
  };
}
