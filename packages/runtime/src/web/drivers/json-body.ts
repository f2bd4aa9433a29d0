/** JSON bodies: strict UTF-8, no prototype poisoning, and an empty body is no body, since many clients declare JSON for none. */
import type { FastifyInstance } from "fastify";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Replaces Fastify's JSON parser. */
export function acceptJsonBodies(fastify: FastifyInstance): void {
  const parse = fastify.getDefaultJsonParser("error", "error") as (
    request: unknown,
    body: string,
    done: (error: Error | null, value?: unknown) => void,
  ) => void;
  fastify.removeContentTypeParser("application/json");
  fastify.addContentTypeParser("application/json", { parseAs: "buffer" }, (request, body, done) => {
    const bytes = body as Buffer;
    if (bytes.length === 0) return done(null, undefined);
    let text: string;
    try {
      text = utf8.decode(bytes);
    } catch {
      return done(
        Object.assign(new Error("The body is not valid UTF-8."), {
          statusCode: 400,
          errors: { body: ["is not valid UTF-8"] },
        }),
      );
    }
    parse(request, text, (error, value) => {
      if (error === null) done(null, value);
      else done(Object.assign(error, { statusCode: 400, errors: { body: ["is not valid JSON"] } }));
    });
  });
}
