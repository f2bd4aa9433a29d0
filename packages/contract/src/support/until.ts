/** Waiting for what a test cannot be told. */

/** Polls until it holds; raises after `withinMs`, default 20 s. */
export async function until(what: string, holds: () => Promise<boolean>, withinMs = 20_000): Promise<void> {
  const giveUpAt = performance.now() + withinMs;
  while (!(await holds().catch(() => false))) {
    if (performance.now() > giveUpAt) throw new Error(`Waited ${withinMs} ms in vain until ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
