/** One request for JSON to a server of this machine, on a connection of its own. */
import { request } from "node:http";

export interface JsonRequest {
  readonly url: string;
  readonly method?: "GET" | "POST" | "PATCH";
  readonly body?: unknown;
  /** Basic authentication. */
  readonly login?: { readonly user: string; readonly password: string };
  readonly token?: string;
  readonly signal: AbortSignal;
}

export interface JsonAnswer {
  readonly status: number;
  /** The text where it was no JSON. */
  readonly content: unknown;
}

/** Resolves with whatever status; raises when there was no answer. */
export function askJson({ url, method = "GET", body, login, token, signal }: JsonRequest): Promise<JsonAnswer> {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  const headers = {
    connection: "close",
    // Patroni reads no body that comes in chunks.
    ...(sent === undefined ? {} : { "content-type": "application/json", "content-length": Buffer.byteLength(sent) }),
    ...(login === undefined
      ? {}
      : { authorization: `Basic ${Buffer.from(`${login.user}:${login.password}`).toString("base64")}` }),
    ...(token === undefined ? {} : { authorization: token }),
  };
  return new Promise((resolve, reject) => {
    const asked = request(url, { method, headers, agent: false, signal }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part;
      });
      response.once("end", () => resolve({ status: response.statusCode ?? 0, content: parsed(text) }));
      response.once("error", reject);
    });
    asked.once("error", reject);
    asked.end(sent);
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
