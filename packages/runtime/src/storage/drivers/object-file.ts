/**
 * One object as one file: its body, then a trailer of fixed length that says what it is.
 *
 * Body and description are written to the same file before it gets its name, so whoever opens it has both of one version,
 * whatever replaces the name meanwhile; and a body at the start can be looked at by any program.
 */
import type { FileHandle } from "node:fs/promises";
import { z } from "zod";
import { storageFailed } from "../storage-errors.ts";

/** Bytes behind the body. */
export const trailerBytes = 512;

const trailerSchema = z.object({
  format: z.literal("rungs-object-1"),
  sizeBytes: z.int().min(0),
  contentType: z.string(),
  etag: z.string(),
});

/** What a trailer says. */
export type Trailer = Omit<z.infer<typeof trailerSchema>, "format">;

/** The bytes of a trailer. */
export function trailerOf({ sizeBytes, contentType, etag }: Trailer): Buffer {
  const text = JSON.stringify({ format: "rungs-object-1", sizeBytes, contentType, etag });
  return Buffer.from(`\n${text.padEnd(trailerBytes - 2)}\n`);
}

/** Reads the trailer of an open file. Raises `STORAGE_FAILED` for a file that is no whole object. */
export async function readTrailer(file: FileHandle, key: string): Promise<Trailer & { readonly modifiedAt: Date }> {
  const { size, mtime } = await file.stat();
  const buffer = Buffer.alloc(trailerBytes);
  const { bytesRead } = await file.read(buffer, 0, trailerBytes, Math.max(0, size - trailerBytes));
  const trailer = trailerSchema.safeParse(jsonOf(buffer.toString("utf8", 0, bytesRead)));
  if (trailer.success && trailer.data.sizeBytes === size - trailerBytes) return { ...trailer.data, modifiedAt: mtime };
  throw storageFailed(`The file of "${key}" is no whole object: it was changed or cut from outside`, undefined, false);
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
