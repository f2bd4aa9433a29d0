/** The method for gRPC, with protobufjs as most Node services have it. */
import type * as grpc from "@grpc/grpc-js";
import protobuf from "protobufjs";
import { quoteProto } from "./quote.ts";

const root = protobuf.parse(quoteProto).root;
const Question = root.lookupType("bench.Question");
const Quote = root.lookupType("bench.Quote");
const writer = (type: protobuf.Type) => (value: object) => Buffer.from(type.encode(type.fromObject(value)).finish());
const reader = (type: protobuf.Type) => (bytes: Buffer) => type.toObject(type.decode(bytes));

export const quotesService = {
  quote: {
    path: "/bench.Quotes/Quote",
    requestStream: false,
    responseStream: false,
    requestSerialize: writer(Question),
    requestDeserialize: reader(Question),
    responseSerialize: writer(Quote),
    responseDeserialize: reader(Quote),
  },
} as const satisfies grpc.ServiceDefinition;
