/** The call tier: one service asks another and waits, within a process or between processes, by the same words. */
export type { Call, CallDriver, CallOptions } from "./call.ts";
export { type CallReads, plainReads } from "./call-reads.ts";
export { type CallKey, type CallKeys, callSigner, callVerifier } from "./call-signature.ts";
export { CallStats, durationBoundsMs, type MethodStats } from "./call-stats.ts";
export { type CallTarget, createCallTarget, type TargetLimits, type TargetStats } from "./call-target.ts";
export { createCalls } from "./calls.ts";
export { CircuitBreaker } from "./circuit-breaker.ts";
export {
  callError,
  type DeclaredError,
  defineMethod,
  type Method,
  type MethodDefinition,
  type ServedCall,
  type ServedMethod,
  serve,
} from "./method.ts";
export { createServedMethods, type ServedMethods } from "./served-methods.ts";
export { storedCallKeys } from "./stored-call-keys.ts";
