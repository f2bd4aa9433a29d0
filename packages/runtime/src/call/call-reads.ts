/**
 * How what a caller has written and read is seen by what the callee reads, and the other way round, where databases have copies that lag
 * and processes have caches. Declared here for whoever routes reads; see `joined-reads.ts` of the runtime. Notes are texts that only
 * it understands; they travel under the call's signature.
 */
export interface CallReads {
  /** At the caller, before a call leaves the process; undefined when there is nothing to say. Raises `UnavailableError`. */
  carry(): Promise<string | undefined>;
  /** At the caller, with what came back. */
  merge(note: string): Promise<void>;
  /**
   * At the callee: does the work so that it reads nothing older than the note says; of an unsafe method, the newest there is. Gives a
   * note of what the work has written and read. Raises `UnavailableError` when that cannot be told.
   */
  serve<R>(
    options: { readonly note: string | undefined; readonly isSafe: boolean },
    work: () => Promise<R>,
  ): Promise<{ readonly result: R; readonly note: string | undefined }>;
  /** The same for a call within the process, which reads as its caller does. */
  serveHere<R>(options: { readonly isSafe: boolean }, work: () => Promise<R>): Promise<R>;
}

/** Where there is one copy of everything. */
export const plainReads: CallReads = {
  carry: async () => undefined,
  merge: async () => {},
  serve: async (_options, work) => ({ result: await work(), note: undefined }),
  serveHere: (_options, work) => work(),
};
