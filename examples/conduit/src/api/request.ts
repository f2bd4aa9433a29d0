/** Reading of API requests: bodies are wrapped in one named object, query parameters arrive as text. */
import { ProblemError } from "../domain/problem.ts";
import { inputs, parse } from "../domain/validation.ts";

/** The object under `name` in a JSON body, as RealWorld wraps them; a 422 problem when it is not there. */
export function wrapped(body: unknown, name: string): Record<string, unknown> {
  const value = typeof body === "object" && body !== null ? (body as Record<string, unknown>)[name] : undefined;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ProblemError(422, { [name]: [value === undefined ? "can't be blank" : "must be an object"] });
  }
  return value as Record<string, unknown>;
}

/** Page parameters of a query string. */
export function pageOf(query: unknown): { limit: number; offset: number } {
  return parse(inputs.page, { limit: integerOf(query, "limit"), offset: integerOf(query, "offset") });
}

/** A text parameter; empty counts as absent, and of a repeated one the first counts. */
export function textOf(query: unknown, name: string): string | undefined {
  const value = (query as Record<string, unknown>)[name];
  const first = Array.isArray(value) ? value[0] : value;
  return typeof first === "string" && first !== "" ? clean(first, name) : undefined;
}

/** All texts of a parameter that may be repeated; empty ones are left out. */
export function textsOf(query: unknown, name: string): readonly string[] {
  const value = (query as Record<string, unknown>)[name];
  const texts = (Array.isArray(value) ? value : [value]).filter((text) => typeof text === "string" && text !== "");
  return texts.map((text: string) => clean(text, name));
}

/** A path parameter that is a whole number; a 404 problem about `thing` when it cannot name one. */
export function numberOf(text: string, thing: string): number {
  const number = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (Number.isNaN(number)) throw new ProblemError(404, { [thing]: ["not found"] });
  return number;
}

/** A whole number of a query string; text that is none is given back for the validation to refuse. */
export function integerOf(query: unknown, name: string): number | string | undefined {
  const text = textOf(query, name);
  return text !== undefined && /^-?\d{1,15}$/.test(text) ? Number(text) : text;
}

function clean(text: string, name: string): string {
  if (text.length > 300 || text.includes("\u0000")) throw new ProblemError(422, { [name]: ["is invalid"] });
  return text;
}
