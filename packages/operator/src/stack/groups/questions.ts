/**
 * Questions of the launcher to a process of the app, about what that process holds in memory.
 *
 * They go over the channel that Node opens between a process and its child (a pair of sockets without a name): nobody else has an end of
 * it, and no address leads there. Whoever may open the launcher's control socket may ask.
 */
import type { ChildProcess } from "node:child_process";
import { RungsError, UnavailableError } from "rungs";
import { ToldError } from "../../exit-code.ts";

/** Answer of one process, or why there is none. */
export type Answered<T> =
  | { readonly process: string; readonly answer: T }
  | { readonly process: string; readonly error: { readonly code: string; readonly message: string } };

const withinMs = 5_000;
/** One more is refused. */
const openMax = 100;

interface Asked {
  readonly ask: number;
  readonly question: unknown;
}

interface Reply {
  readonly ask: number;
  readonly answer?: unknown;
  readonly error?: { readonly code: string; readonly message: string };
}

/** The launcher's end of the channel with one child. */
export class Questions {
  private readonly child: ChildProcess;
  private readonly open = new Map<number, (reply: Reply) => void>();
  private last = 0;

  constructor(child: ChildProcess) {
    this.child = child;
    child.on("message", (reply: Reply) => this.open.get(reply?.ask)?.(reply));
    child.once("disconnect", () => {
      for (const [ask, end] of this.open) end({ ask, error: noAnswer("it ended") });
    });
  }

  /** The answer; raises what the process raised, and `SERVER_START_FAILED` when it does not answer within 5 s. */
  async ask(question: unknown): Promise<unknown> {
    if (this.open.size >= openMax) {
      throw new UnavailableError("OVERLOADED", `${openMax} questions to this process wait already.`, {
        canRetry: true,
      });
    }
    this.last++;
    const ask = this.last;
    const replied = Promise.withResolvers<Reply>();
    this.open.set(ask, replied.resolve);
    const timer = setTimeout(() => replied.resolve({ ask, error: noAnswer(`not within ${withinMs} ms`) }), withinMs);
    try {
      this.child.send({ ask, question } satisfies Asked, (failure) => {
        if (failure) replied.resolve({ ask, error: noAnswer(failure.message) });
      });
      const { answer, error } = await replied.promise;
      if (error !== undefined) throw new ToldError(error);
      return answer;
    } finally {
      clearTimeout(timer);
      this.open.delete(ask);
    }
  }
}

function noAnswer(why: string): { readonly code: string; readonly message: string } {
  return { code: "SERVER_START_FAILED", message: `The process did not answer: ${why}.` };
}

/** An error as it is told to another process. */
export function toldOf(error: unknown): { readonly code: string; readonly message: string } {
  const code = error instanceof RungsError || error instanceof ToldError ? error.code : "FAILED";
  return { code, message: error instanceof Error ? error.message : String(error) };
}

/** The web process's end: answers until it ends, and does not keep the process alive. */
export function answerLauncher(answer: (question: unknown) => Promise<unknown>): void {
  if (process.send === undefined) return;
  const reply = (message: Reply) => {
    if (process.connected) process.send?.(message, undefined, undefined, () => {});
  };
  process.on("message", ({ ask, question }: Asked) => {
    answer(question).then(
      (value) => reply({ ask, answer: value }),
      (error: unknown) => reply({ ask, error: toldOf(error) }),
    );
  });
  process.channel?.unref();
}
