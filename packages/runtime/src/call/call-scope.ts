/**
 * What calls inherit from the work they are made in: how much time it has left, and its trace. A request to the web server and a
 * served call are such work; a job is none, its calls have their own times.
 */
import { AsyncLocalStorage } from "node:async_hooks";

/** One piece of work. */
export interface CallScope {
  /** In monotonic ms of the system's clock. */
  readonly deadlineAt: number;
  /** Made at the first call where none came along. */
  traceparent: string | undefined;
  /** What goes on after the work was done, such as a job that it woke, has a time of its own. Default false. */
  isOver?: boolean;
}

const storage = new AsyncLocalStorage<CallScope>();

/** Does the work, and all that it starts, in the scope. */
export function inCallScope<R>(scope: CallScope, work: () => R): R {
  return storage.run(scope, work);
}

/** The scope of the work under way; undefined outside of any, and in one that is over. */
export function callScope(): CallScope | undefined {
  const scope = storage.getStore();
  return scope?.isOver === true ? undefined : scope;
}
