/** What Conduit's command-line programs have in common. */
import { RungsError } from "rungs";

/** Runs a program: a user's mistake ends it with its message, and only what we did not foresee shows where it happened. */
export async function runCommand(main: () => Promise<void>): Promise<void> {
  try {
    await main();
  } catch (error) {
    const unforeseen = error instanceof Error ? error.stack : String(error);
    process.stderr.write(`\n${error instanceof RungsError ? error.message : unforeseen}\n`);
    process.exitCode = 1;
  }
}
