/** Calls to a provider's HTTP API, each within a deadline. */
import { ProviderUnknownError } from "../payment-provider.ts";

/** A provider's answer, parsed. */
export interface ProviderAnswer {
  readonly status: number;
  /** An empty object when the body is no JSON object. */
  readonly body: Readonly<Record<string, unknown>>;
}

/** Longer than providers take, and shorter than a handler's time limit. */
export const callTimeoutMs = 10_000;
const answerBytesMax = 1_000_000;

/**
 * Calls the API. Raises {@link ProviderUnknownError} when no whole answer came, and for every status that says nothing about
 * the charge: 401 and 403 (our key), 409 (the first call is under way), 429, and from 500 on.
 */
export async function callProvider(options: {
  readonly name: string;
  readonly url: string;
  readonly method: "GET" | "POST";
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal: AbortSignal;
  /** Default {@link callTimeoutMs}. */
  readonly timeoutMs?: number;
}): Promise<ProviderAnswer> {
  const { name, url, method, headers, body, signal, timeoutMs = callTimeoutMs } = options;
  let status: number;
  let text: string;
  try {
    const answer = await fetch(url, {
      method,
      headers,
      redirect: "error",
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      ...(body === undefined ? {} : { body }),
    });
    status = answer.status;
    text = await readText(answer);
  } catch (error) {
    const reason = error instanceof Error && error.name === "TimeoutError" ? `within ${timeoutMs} ms` : "";
    throw new ProviderUnknownError(`${name} did not answer ${reason}`.trim(), { cause: error });
  }
  if (status === 401 || status === 403) {
    throw new ProviderUnknownError(`${name} does not accept our API key (${status}). Check the payment settings.`);
  }
  if (status === 409 || status === 429 || status >= 500) throw new ProviderUnknownError(`${name} answered ${status}`);
  return { status, body: objectOf(text) };
}

async function readText(answer: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of answer.body ?? []) {
    sizeBytes += chunk.length;
    if (sizeBytes > answerBytesMax) throw new Error(`The answer is longer than ${answerBytesMax} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** The text as a JSON object; empty when it is none. */
export function objectOf(text: string): Readonly<Record<string, unknown>> {
  try {
    return recordOf(JSON.parse(text));
  } catch {
    return {};
  }
}

/** The value when it is an object, else an empty one. */
export function recordOf(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
}

/** The value when it is a text of a sensible length. */
export function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" && value.length <= 255 ? value : undefined;
}
