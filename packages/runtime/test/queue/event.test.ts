/** What tools may show of a message. */
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { defineEvent, redact } from "../../src/queue/index.ts";

const secret = () => z.string().meta({ sensitive: true });
const shown = (schema: z.ZodType, payload: unknown) => redact(payload, defineEvent("thing.noted", schema).sensitive);

describe("redaction", () => {
  it("hides what the schema marks, in objects, lists, records and alternatives", () => {
    const schema = z.object({
      id: z.int(),
      card: z.object({ token: secret(), brand: z.string() }),
      mails: z.array(z.object({ to: secret() })),
      headers: z.record(z.string(), secret()),
      way: z.union([z.object({ post: secret() }), z.object({ pickUp: z.string() })]),
    });
    const payload = {
      id: 7,
      card: { token: "x-secret", brand: "visa" },
      mails: [{ to: "x-secret" }, { to: "x-secret" }],
      headers: { a: "x-secret" },
      way: { post: "x-secret" },
    };
    const text = JSON.stringify(shown(schema, payload));
    expect(text).not.toContain("x-secret");
    expect(text).toContain('"brand":"visa"');
    expect(text).toContain('"id":7');
  });

  it("hides what a recursive schema marks, at any depth", () => {
    interface Node {
      readonly name: string;
      readonly password: string;
      readonly children: readonly Node[];
    }
    const node: z.ZodType<Node> = z.lazy(() =>
      z.object({ name: z.string(), password: secret(), children: z.array(node) }),
    );
    const nest = (depth: number): Node => ({
      name: `level ${depth}`,
      password: "x-secret",
      children: depth === 0 ? [] : [nest(depth - 1)],
    });
    for (const payload of [{ top: nest(12) }, { top: nest(0) }]) {
      const text = JSON.stringify(shown(z.object({ top: node }), payload));
      expect(text).not.toContain("x-secret");
      expect(text).toContain(payload.top.name);
    }
  });
});
