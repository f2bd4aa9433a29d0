/** The form of a call as an HTTP request: what both of its ends have to agree on. */

/** Below it are the methods. Not for the outside: balancers have to refuse it. */
export const callPath = "/internal/call";
/** Of its own, so that the body arrives as the bytes that were signed. */
export const callContentType = "application/vnd.rungs.call+json";

/** Headers by what they carry. */
export const callHeaders = {
  /** Time left in ms; not a time of day, since clocks differ. */
  deadline: "rungs-call-deadline",
  /** Not `Idempotency-Key`: by that, balancers send a request again, whatever the method says of itself. */
  key: "rungs-call-key",
  reads: "rungs-call-reads",
  traceparent: "traceparent",
  /** Of answers: "answer" or "denied". An answer without it comes from something in between. */
  kind: "rungs-call",
} as const;

/** The path of a method named "service.method". */
export function callPathOf(name: string): string {
  return `${callPath}/${name.replace(".", "/")}`;
}
