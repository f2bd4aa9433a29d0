/** What is told to a HAProxy that runs, through the socket of its runtime interface (HAProxy management guide, 9.3). */
import { connect } from "node:net";

const answerWithinMs = 2_000;
/** What is sent at once must fit into one of its buffers (`tune.bufsize`, 16 KiB at least). */
const mapBytesMax = 8_192;
/** Of a socket at which nobody listens, or no more. */
const isNobody: ReadonlySet<string | undefined> = new Set(["ENOENT", "ECONNREFUSED", "ECONNRESET", "EPIPE"]);

/** Runs one command and gives its answer; undefined when no HAProxy runs there. */
export function command(socket: string, line: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const connection = connect({ path: socket, signal: AbortSignal.timeout(answerWithinMs) });
    let answer = "";
    connection.setEncoding("utf8").on("data", (text) => {
      answer += text;
    });
    connection.once("error", (error: NodeJS.ErrnoException) => {
      if (isNobody.has(error.code)) resolve(undefined);
      else reject(error);
    });
    connection.once("end", () => resolve(answer));
    connection.write(`${line}\n`);
  });
}

/** Whether a place gets requests: its operational state is 2, running ("show servers state"). */
export async function isRunning(
  socket: string,
  { backend, place }: { readonly backend: string; readonly place: string },
): Promise<boolean> {
  const lines = (await command(socket, `show servers state ${backend}`))?.split("\n");
  const fields = lines?.map((line) => line.split(" ")).find((words) => words[3] === place);
  return fields?.[5] === "2";
}

/**
 * Replaces all lines of the map that was read from `file`, at once: each request meets the old ones or the new ones. Nothing where no
 * HAProxy runs: the next one reads the file.
 */
export async function replaceMap(
  socket: string,
  { file, lines }: { readonly file: string; readonly lines: readonly string[] },
): Promise<void> {
  const said = await command(socket, `prepare map ${file}`);
  if (said === undefined) return;
  const version = /New version created: (\d+)/.exec(said)?.[1];
  if (version === undefined) throw new Error(`HAProxy does not take another map in place of ${file}: ${said.trim()}`);
  // What follows "<<" ends with an empty line.
  for (const part of partsOf(lines)) await expectSilence(socket, `add map @${version} ${file} <<\n${part}\n`);
  await expectSilence(socket, `commit map @${version} ${file}`);
}

async function expectSilence(socket: string, line: string): Promise<void> {
  const said = (await command(socket, line))?.trim() ?? "";
  const [first] = said.split("\n");
  if (first !== "") throw new Error(`HAProxy does not take "${line.split("\n")[0]}": ${first}`);
}

function partsOf(lines: readonly string[]): string[] {
  const parts: string[] = [];
  for (const line of lines) {
    const last = parts.at(-1);
    if (last === undefined || last.length + line.length > mapBytesMax) parts.push(line);
    else parts[parts.length - 1] = `${last}\n${line}`;
  }
  return parts;
}
