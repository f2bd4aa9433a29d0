/** Trace context: W3C Trace Context (2021), header `traceparent`. It is handed on as it came: nothing here records a span. */
import type { Random } from "../kernel/random.ts";

const form = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The header's value if it is one of version 00 or reads like one, else undefined (section 4.3: start anew). */
export function readTraceparent(header: string | readonly string[] | undefined): string | undefined {
  return typeof header === "string" && form.test(header) ? header : undefined;
}

/** A new one, not sampled: whether to record is for whoever traces to say. */
export function newTraceparent(random: Random): string {
  const hex = Buffer.from(random.bytes(24)).toString("hex");
  return `00-${hex.slice(0, 32)}-${hex.slice(32)}-00`;
}

/** The part that names the whole trace, for logs and messages. */
export function traceIdOf(traceparent: string): string {
  return traceparent.slice(3, 35);
}
