/** The session tier: server-side sessions, passwords, login throttle and CSRF rule; usable with any Node http handler. */
export {
  type AdoptingSessionStoreOptions,
  type AdoptiveSessionStore,
  adoptingSessionStore,
} from "./adopting-session-store.ts";
export type { AttemptCounts, AttemptStore, AttemptWindow } from "./attempt-store.ts";
export { type CopyAge, type CopyAgeOptions, type HeartbeatLine, openCopyAge } from "./copy-age.ts";
export { type CsrfEvidence, type CsrfVerdict, csrfToken, csrfVerdict, passesCsrf } from "./csrf.ts";
export { localAttemptStore } from "./drivers/local-attempt-store.ts";
export {
  createLoginThrottle,
  type LoginAttempt,
  type LoginThrottle,
  type LoginThrottleOptions,
  type ThrottleVerdict,
} from "./login-throttle.ts";
export {
  type NearSessionStats,
  type NearSessionStore,
  type NearSessionStoreOptions,
  nearSessionStore,
} from "./near-session-store.ts";
export {
  argon2Lanes,
  argon2MemoryKib,
  argon2Passes,
  createPasswords,
  type Passwords,
  type PasswordsOptions,
} from "./password.ts";
export { RequestRefusedError } from "./request-refused.ts";
export {
  latestSeen,
  newerPart,
  nothingSeen,
  type ReadUnit,
  type ReadUnits,
  type Seen,
  type SeenListener,
} from "./seen.ts";
export { type SessionReads, type SessionReadsOptions, type SessionReadsStats, sessionReads } from "./session-reads.ts";
export type { SessionRevocations } from "./session-revocations.ts";
export {
  type JsonValue,
  type SessionCapabilities,
  type SessionData,
  type SessionPatch,
  type SessionReadOptions,
  type SessionRecord,
  type SessionStore,
  type SessionSweep,
  sessionDataBytesMax,
} from "./session-store.ts";
export {
  type CarriedToken,
  readSessionCookie,
  readSessionToken,
  type SessionHeaders,
  sessionCookie,
} from "./session-token.ts";
export { createSessions, type Session, type Sessions, type SessionsOptions } from "./sessions.ts";
export { type NotedRevision, type SeenNote, type SeenSigner, seenSigner } from "./signed-seen.ts";
export type { WriteMarks } from "./write-marks.ts";
