/** The process that answers, by every system; says their addresses once it listens. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import * as grpc from "@grpc/grpc-js";
import { pino } from "pino";
import { callVerifier, createServedMethods } from "rungs/call";
import { serveCalls } from "rungs/call/fastify";
import { createMetrics } from "rungs/monitor";
import { createWebServer } from "rungs/web/fastify";
import { quotesService } from "./grpc-service.ts";
import { benchKeys, quoteOf, servedQuote } from "./quote.ts";

const rungs = createWebServer({
  ...{ host: "127.0.0.1", port: 0, bodyLimitBytes: 1_048_576, requestTimeoutMs: 30_000 },
  ...{ log: pino({ level: "silent" }), metrics: createMetrics() },
});
serveCalls(rungs.fastify, {
  served: createServedMethods({ methods: servedQuote }),
  context: undefined,
  verify: callVerifier({ keys: benchKeys }),
});

const bare = createServer((request, response) => {
  let text = "";
  request.setEncoding("utf8");
  request.on("data", (chunk) => (text += chunk));
  request.on("end", () => {
    const body = JSON.stringify(quoteOf(JSON.parse(text)));
    response
      .writeHead(200, { "content-type": "application/json", "content-length": Buffer.byteLength(body) })
      .end(body);
  });
}).listen(0, "127.0.0.1");

const grpcServer = new grpc.Server();
grpcServer.addService(quotesService, {
  quote: (call: { request: Parameters<typeof quoteOf>[0] }, done: (error: null, answer: object) => void) =>
    done(null, quoteOf(call.request)),
});
const grpcPort = await new Promise<number>((resolve, reject) =>
  grpcServer.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) =>
    error === null ? resolve(port) : reject(error),
  ),
);

const addresses = {
  rungs: await rungs.listen(),
  bare: `http://127.0.0.1:${(bare.address() as AddressInfo).port}`,
  grpc: `127.0.0.1:${grpcPort}`,
};
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  process.send?.(user + system);
});
process.once("disconnect", () => process.exit(0));
process.send?.(addresses);
