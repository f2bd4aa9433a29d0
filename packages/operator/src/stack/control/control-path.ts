/** Where sockets of a stack are. */
import { createHash } from "node:crypto";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** sun_path is 108 bytes on Linux, 104 on macOS, with its end (unix(7)). */
const pathBytesMax = 103;

/** Where the socket of the stack in this folder is; in a folder with too long a name, elsewhere. */
export function controlPath(folder: string): string {
  const inside = join(folder, "control.sock");
  if (Buffer.byteLength(inside) <= pathBytesMax) return inside;
  const hash = createHash("sha256").update(folder).digest("hex").slice(0, 24);
  return join(tmpdir(), `rungs-${process.getuid?.() ?? 0}-${hash}.sock`);
}
