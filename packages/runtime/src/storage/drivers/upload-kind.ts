/** What a file is, by its first bytes. */
import type { Readable } from "node:stream";
import { ConfigError } from "../../kernel/errors.ts";

/** A kind of content. */
export interface KindOfBytes {
  readonly contentType: string;
  readonly extension: string;
}

type KindReader = (head: Buffer) => Promise<KindOfBytes | undefined>;

/** file-type's own sample size; less is enough for all kinds that have their mark at the start. */
const headBytes = 4_100;

let loading: Promise<KindReader> | undefined;

/** Loads file-type once. Raises `PACKAGE_MISSING` without it. */
export function kindReader(): Promise<KindReader> {
  loading ??= import("file-type").then(
    ({ fileTypeFromBuffer }): KindReader =>
      async (head) => {
        // Some of its readers raise on what is cut short; that is no kind either.
        const found = await fileTypeFromBuffer(head).catch(() => undefined);
        return found && { contentType: found.mime, extension: found.ext };
      },
    (error: unknown) => {
      loading = undefined;
      const message = "Uploads need the package file-type, which cannot be loaded. Install it: npm install file-type";
      throw new ConfigError("PACKAGE_MISSING", message, { cause: error });
    },
  );
  return loading;
}

/** Takes the first bytes off a stream, fewer when it ends before. Raises what the stream raises. */
export async function headOf(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let length = 0;
  while (length < headBytes) {
    const chunk = stream.read() as Buffer | null;
    if (chunk !== null) {
      chunks.push(chunk);
      length += chunk.length;
    } else if (stream.readableEnded || stream.destroyed) break;
    else await moved(stream);
  }
  if (stream.errored !== null) throw stream.errored;
  return Buffer.concat(chunks);
}

function moved(stream: Readable): Promise<void> {
  return new Promise((resolve, reject) => {
    const events = ["readable", "end", "close"] as const;
    const settle = (end: () => void) => () => {
      for (const event of events) stream.off(event, done);
      stream.off("error", failed);
      end();
    };
    const done = settle(resolve);
    const failed = (error: Error) => settle(() => reject(error))();
    for (const event of events) stream.on(event, done);
    stream.on("error", failed);
  });
}
