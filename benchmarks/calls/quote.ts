/** What all systems are asked, and what they answer. */
import { defineMethod, type ServedMethod, serve } from "rungs/call";
import { z } from "zod";

export interface Question {
  readonly amount: number;
  readonly currency: string;
  readonly payer: string;
}

export interface Quote {
  readonly fee: number;
  readonly total: number;
}

/** The answer. */
export function quoteOf({ amount }: Question): Quote {
  const fee = Math.floor(amount / 20);
  return { fee, total: amount + fee };
}

export const quote = defineMethod("bench.quote", {
  input: z.object({ amount: z.int().positive(), currency: z.string().length(3), payer: z.uuid() }),
  output: z.object({ fee: z.int(), total: z.int() }),
  isSafe: true,
});

export const servedQuote: readonly ServedMethod<undefined>[] = [serve(quote, async (input) => quoteOf(input))];

/** Signs the benchmark's calls. */
export const benchKey = { id: "bench", secret: Buffer.alloc(32, 5) };
export const benchKeys = { newest: () => benchKey, find: async () => benchKey };

/** gRPC's own form of the same method. */
export const quoteProto = `
syntax = "proto3";
package bench;
message Question { int32 amount = 1; string currency = 2; string payer = 3; }
message Quote { int32 fee = 1; int32 total = 2; }
service Quotes { rpc Quote (Question) returns (Quote); }
`;
