/** The ways to ask for a quote, each as one function. */
import { Agent, request } from "node:http";
import * as grpc from "@grpc/grpc-js";
import { callSigner, createCalls, createCallTarget, createServedMethods } from "rungs/call";
import { httpCalls } from "rungs/call/http";
import { Pool } from "undici";
import { quotesService } from "./grpc-service.ts";
import { benchKeys, type Question, type Quote, quote, quoteOf, servedQuote } from "./quote.ts";

/** One of them. */
export interface CallSystem {
  readonly name: string;
  call(question: Question): Promise<Quote>;
  close(): Promise<void>;
}

const connectionsMax = 100;
const served = createServedMethods({ methods: servedQuote });

/** Opens each, given the addresses of the callee's process. */
export const systems: readonly ((addresses: Readonly<Record<string, string>>) => Promise<CallSystem>)[] = [
  async () => ({
    name: "function and JSON",
    call: async (question) => JSON.parse(JSON.stringify(quoteOf(JSON.parse(JSON.stringify(question))))),
    close: async () => {},
  }),
  async () => {
    const call = createCalls({ served, context: () => undefined, caller: "bench" });
    return { name: "call, one process", call: (question) => call(quote, question), close: async () => {} };
  },
  async ({ bare = "" }) => {
    const pool = new Pool(bare, { connections: connectionsMax, pipelining: 1 });
    const headers = { "content-type": "application/json" };
    return {
      name: "bare HTTP",
      async call(question) {
        const { body } = await pool.request({ path: "/", method: "POST", headers, body: JSON.stringify(question) });
        return (await body.json()) as Quote;
      },
      close: () => pool.close(),
    };
  },
  async ({ bare = "" }) => {
    const agent = new Agent({ keepAlive: true, maxSockets: connectionsMax });
    const headers = { "content-type": "application/json" };
    const { hostname, port } = new URL(bare);
    const ask = (body: string) =>
      new Promise<string>((resolve, reject) => {
        const options = { agent, hostname, port, method: "POST", path: "/" };
        const length = { "content-length": Buffer.byteLength(body) };
        const sent = request({ ...options, headers: { ...headers, ...length } }, (response) => {
          let text = "";
          response.setEncoding("utf8").on("data", (chunk) => (text += chunk));
          response.on("end", () => resolve(text)).on("error", reject);
        });
        sent.on("error", reject).end(body);
      });
    return {
      name: "bare HTTP, node:http",
      call: async (question) => JSON.parse(await ask(JSON.stringify(question))) as Quote,
      close: async () => agent.destroy(),
    };
  },
  async ({ rungs = "" }) => {
    const sign = callSigner({ keys: benchKeys, caller: "bench" });
    const drivers = [httpCalls({ url: rungs, sign, connectionsMax })];
    const target = createCallTarget({ name: "bench", drivers });
    const targets = new Map([["bench", target]]);
    const call = createCalls({ served, context: () => undefined, targets, caller: "bench" });
    return { name: "call, over HTTP", call: (question) => call(quote, question), close: () => target.close() };
  },
  async ({ grpc: address = "" }) => {
    const Client = grpc.makeGenericClientConstructor(quotesService, "Quotes");
    const client = new Client(address, grpc.credentials.createInsecure());
    const ask = client["quote"] as (
      question: Question,
      options: grpc.CallOptions,
      done: (error: Error | null, answer: Quote) => void,
    ) => void;
    return {
      name: "gRPC",
      call: (question) =>
        new Promise((resolve, reject) => {
          ask.call(client, question, { deadline: Date.now() + 2_000 }, (error, answer) =>
            error === null ? resolve(answer) : reject(error),
          );
        }),
      close: async () => client.close(),
    };
  },
];
