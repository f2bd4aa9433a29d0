/** A job store whose database is down at the start: opened when it is first asked and the database is there. */
import type { JobStore } from "../job-store.ts";

/** Until `open` succeeds, every call opens anew and raises what that raises. */
export function lateJobStore(name: string, open: () => Promise<JobStore>): JobStore {
  let opening: Promise<JobStore> | undefined;
  const opened = () => {
    opening ??= open().catch((error: unknown) => {
      opening = undefined;
      throw error;
    });
    return opening;
  };
  return {
    name,
    claim: async (...call) => (await opened()).claim(...call),
    settle: async (...call) => (await opened()).settle(...call),
    heartbeat: async (...call) => (await opened()).heartbeat(...call),
    releaseUnknown: async (...call) => (await opened()).releaseUnknown?.(...call),
    leave: async (...call) => (await opened()).leave(...call),
    once: async (...call) => (await opened()).once(...call),
    newer: async (...call) => (await (await opened()).newer?.(...call)) ?? [],
    oldestPublished: async () => (await opened()).oldestPublished(),
    forgetSteps: async (...call) => (await opened()).forgetSteps(...call),
  };
}
