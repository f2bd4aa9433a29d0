/** The time of one call, as a signal. */

/** Aborted when the time is up, with what `late` makes, or with the given signal; `end` has to follow. */
export function startLimit(options: {
  readonly givenMs: number;
  readonly late: () => Error;
  readonly given: AbortSignal | undefined;
}): { readonly signal: AbortSignal; readonly end: () => void } {
  const { givenMs, late, given } = options;
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(late()), Math.max(0, givenMs));
  const leave = () => controller.abort(given?.reason);
  if (given?.aborted === true) leave();
  else given?.addEventListener("abort", leave, { once: true });
  return {
    signal: controller.signal,
    end() {
      clearTimeout(timer);
      given?.removeEventListener("abort", leave);
    },
  };
}

/** What the work gives, or the signal's reason as soon as it is aborted: what goes on after that answers nobody. */
export function unlessAborted<R>(work: Promise<R>, signal: AbortSignal): Promise<R> {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(signal.reason);
    if (signal.aborted) giveUp();
    else signal.addEventListener("abort", giveUp, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener("abort", giveUp));
  });
}
