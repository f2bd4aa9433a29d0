/** Starts parts as soon as what they need is ready, side by side, and stops them the other way round. */
import type { Component } from "./component.ts";

/**
 * Starts all. When one fails, the others are asked to stop starting, everything is stopped, and its error is raised.
 * `onReady` hears of each, with the ms it took.
 */
export async function startAll(
  components: readonly Component[],
  options: { readonly signal: AbortSignal; readonly onReady?: (component: Component, ms: number) => void },
): Promise<void> {
  checkNeeds(components);
  try {
    await startInOrder(components, options);
  } catch (error) {
    await stopAll(components);
    throw error;
  }
}

/**
 * Starts all of these; what they need beside each other runs already. When one fails, the others are asked to stop starting, and its error
 * is raised; what has started runs on.
 */
export async function startInOrder(
  components: readonly Component[],
  options: { readonly signal: AbortSignal; readonly onReady?: (component: Component, ms: number) => void },
): Promise<void> {
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const ready = new Map<string, Promise<void>>();
  const started = (component: Component): Promise<void> => {
    const found = ready.get(component.name);
    if (found !== undefined) return found;
    const run = (async () => {
      const needed = components.filter(({ name }) => component.needs.includes(name));
      await Promise.all(needed.map(started));
      signal.throwIfAborted();
      const since = performance.now();
      await component.start(signal);
      options.onReady?.(component, performance.now() - since);
    })();
    ready.set(component.name, run);
    return run;
  };
  const results = await Promise.allSettled(
    components.map((component) =>
      started(component).catch((error: unknown) => {
        failed.abort(error);
        throw error;
      }),
    ),
  );
  if (results.every(({ status }) => status === "fulfilled")) return;
  // The first failure is the cause; the others were broken off by it.
  options.signal.throwIfAborted();
  throw failed.signal.reason;
}

/** Stops each after those that need it. Gives what went wrong. */
export async function stopAll(components: readonly Component[]): Promise<Error[]> {
  const errors: Error[] = [];
  const stopping = new Map<string, Promise<void>>();
  const stopped = (component: Component): Promise<void> => {
    const found = stopping.get(component.name);
    if (found !== undefined) return found;
    const run = (async () => {
      await Promise.all(components.filter(({ needs }) => needs.includes(component.name)).map(stopped));
      await component.stop().catch((error: unknown) => {
        errors.push(error instanceof Error ? error : new Error(String(error)));
      });
    })();
    stopping.set(component.name, run);
    return run;
  };
  await Promise.all(components.map(stopped));
  return errors;
}

/** A part that needs an unknown one, or itself in the end, would wait for ever. */
function checkNeeds(components: readonly Component[]): void {
  const visit = (component: Component, path: readonly string[]): void => {
    for (const name of component.needs) {
      const needed = components.find((other) => other.name === name);
      if (needed === undefined) throw new Error(`${component.name} needs ${name}, which is no part of the stack.`);
      if (path.includes(name)) throw new Error(`${[...path, name].join(" needs ")}: a circle.`);
      visit(needed, [...path, name]);
    }
  };
  for (const component of components) visit(component, [component.name]);
}
