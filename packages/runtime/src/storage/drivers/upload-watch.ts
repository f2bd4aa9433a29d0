/** Watches an upload on its way: cuts it when it takes too long, falls silent, or its client goes away. */
import type { IncomingMessage } from "node:http";
import { Readable } from "node:stream";
import { sizeText, type UploadLimits, UploadRefusedError } from "../upload.ts";

/** A watch over one request. */
export interface UploadWatch {
  /** Aborted with {@link UploadWatch.cut}. */
  readonly signal: AbortSignal;
  /** Why the request was cut; undefined while it is not. */
  readonly cut: UploadRefusedError | undefined;
  /** Gives what the work gives, or raises the cut as soon as there is one. */
  orCut<R>(work: Promise<R>): Promise<R>;
  /** The file's body with its head put back, and with its size bounded. */
  counted(body: Readable, head: Buffer, bytesMax: number): Readable;
  end(): void;
}

/** Begins to watch. A pause that our own side makes, because the store is slow, is not the client's silence. */
export function watchUpload(
  request: IncomingMessage,
  { timeMaxMs, idleMaxMs }: Pick<UploadLimits, "timeMaxMs" | "idleMaxMs">,
): UploadWatch {
  const abort = new AbortController();
  let cut: UploadRefusedError | undefined;
  const end = (refusal: UploadRefusedError) => {
    cut ??= refusal;
    abort.abort(cut);
  };
  const { socket } = request;
  let bytesRead = socket.bytesRead;
  const total = setTimeout(() => {
    if (!request.complete)
      end(new UploadRefusedError("UPLOAD_TIMEOUT", `did not arrive within ${secondsText(timeMaxMs)}`));
  }, timeMaxMs);
  const idle = setInterval(() => {
    const isOurPause = request.readableLength > 0 || request.isPaused();
    if (socket.bytesRead === bytesRead && !isOurPause && !request.complete)
      end(new UploadRefusedError("UPLOAD_TIMEOUT", `stopped arriving for ${secondsText(idleMaxMs)}`));
    bytesRead = socket.bytesRead;
  }, idleMaxMs);
  const onClose = () => {
    if (!request.complete) end(new UploadRefusedError("UPLOAD_INVALID", "did not arrive whole: the client went away"));
  };
  request.on("close", onClose);
  return {
    signal: abort.signal,
    get cut() {
      return cut;
    },
    async orCut(work) {
      let stop: () => void = () => {};
      const ended = new Promise<never>((_, reject) => {
        stop = () => reject(cut);
      });
      abort.signal.addEventListener("abort", stop, { once: true });
      if (abort.signal.aborted) stop();
      work.catch(() => {});
      try {
        return await Promise.race([work, ended]);
      } finally {
        abort.signal.removeEventListener("abort", stop);
      }
    },
    counted: (body, head, bytesMax) =>
      Readable.from(countedChunks(body, { head, bytesMax, signal: abort.signal }), { objectMode: false }),
    end() {
      clearTimeout(total);
      clearInterval(idle);
      request.off("close", onClose);
    },
  };
}

async function* countedChunks(
  body: Readable,
  { head, bytesMax, signal }: { readonly head: Buffer; readonly bytesMax: number; readonly signal: AbortSignal },
): AsyncGenerator<Buffer> {
  let bytes = 0;
  const counted = (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes <= bytesMax) return chunk;
    throw new UploadRefusedError("UPLOAD_LIMIT_EXCEEDED", `is over ${sizeText(bytesMax)}, the limit`);
  };
  const onAbort = () => body.destroy(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    yield counted(head);
    for await (const chunk of body) yield counted(chunk as Buffer);
    // A body that was cut from outside ends like a whole one.
    signal.throwIfAborted();
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function secondsText(ms: number): string {
  return `${Math.ceil(ms / 1_000)} s`;
}
