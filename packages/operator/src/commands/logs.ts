/** `rungs logs`: what the processes of a stack wrote. */
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { nearestName } from "rungs/topology";
import type { Command, CommandContext } from "../command.ts";
import { NotFoundError } from "../exit-code.ts";
import { wholeNumber } from "../parse.ts";
import { foldersOf } from "../stack/stack-plan.ts";
import { folderOf, stackFlags } from "./stack/common.ts";

const linesDefault = 20;
const linesMax = 100_000;
const lineBytes = 512;
const lookEveryMs = 250;
const readBytesMax = 1024 * 1024;

/** The command. */
export const logs: Command = {
  definition: {
    meta: { name: "logs", description: "Print the end of the logs of all processes, or of one" },
    args: {
      name: {
        type: "positional",
        required: false,
        description: "A process as in rungs status, e.g. web-1; default all",
      },
      lines: {
        type: "string",
        valueHint: "n",
        description: `Lines of each, 0 to ${linesMax} (default ${linesDefault})`,
      },
      follow: { type: "boolean", description: "Go on with what is written from now on, until Ctrl-C" },
      ...stackFlags,
    },
  },
  examples: [
    ["rungs logs", "the last 20 lines of each process"],
    ["rungs logs web-1 --lines 200", "more of one"],
    ["rungs logs --follow --lines 0", "what happens from now on"],
    ["rungs logs balancer-access --follow", "each request that passes the balancer"],
  ],
  wordsMax: 1,
  endsBySignal: true,
  async run(values, context) {
    const folder = foldersOf(await folderOf(values, context)).logs;
    const lines = wholeNumber(values, { name: "lines", min: 0, max: linesMax, fallback: linesDefault });
    const names = await namesOf(folder, values.words[0]);
    const width = Math.max(...names.map((name) => name.length));
    const positions = new Map<string, number>();
    const show = (name: string, text: string) => {
      if (text === "") return;
      context.output.json({ name, line: text });
      context.output.line(`${context.output.colors.dim(name.padEnd(width))}  ${text}`);
    };
    for (const name of names) {
      const path = join(folder, `${name}.log`);
      const size = await sizeOf(path);
      positions.set(name, size);
      if (lines === 0) continue;
      const text = await readPart(path, Math.max(0, size - lines * lineBytes), size);
      for (const line of text.trimEnd().split("\n").slice(-lines)) show(name, line);
    }
    if (values.isSet("follow")) await follow(folder, positions, { show, ...context });
  },
};

/** All logs, or the one that is named. Raises {@link NotFoundError} when it is not there. */
async function namesOf(folder: string, wanted: string | undefined): Promise<string[]> {
  const files = await readdir(folder).catch(() => []);
  const names = files.filter((file) => file.endsWith(".log")).map((file) => file.slice(0, -".log".length));
  if (names.length === 0) throw new NotFoundError(`There are no logs in ${folder}. Start the app with: rungs up`);
  if (wanted === undefined) return names.filter((name) => !name.endsWith("-access")).sort();
  if (names.includes(wanted)) return [wanted];
  const meant = nearestName(wanted, names);
  throw new NotFoundError(
    `There is no log of "${wanted}"${meant === undefined ? `; there are: ${names.join(", ")}` : `; did you mean ${meant}?`}`,
  );
}

async function follow(
  folder: string,
  positions: Map<string, number>,
  { signal, show }: Pick<CommandContext, "signal"> & { readonly show: (name: string, line: string) => void },
): Promise<void> {
  const rests = new Map<string, string>();
  while (!signal.aborted) {
    for (const [name, position] of positions) {
      const path = join(folder, `${name}.log`);
      const size = await sizeOf(path);
      // Smaller than before: a new file, after the old one was full.
      const from = size < position ? 0 : position;
      const text = (rests.get(name) ?? "") + (await readPart(path, from, Math.min(size, from + readBytesMax)));
      positions.set(name, Math.min(size, from + readBytesMax));
      const lines = text.split("\n");
      rests.set(name, lines.pop() ?? "");
      for (const line of lines) show(name, line);
    }
    await sleep(lookEveryMs, undefined, { signal }).catch(() => {});
  }
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

async function readPart(path: string, from: number, to: number): Promise<string> {
  if (to <= from) return "";
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(to - from), 0, to - from, from);
    return buffer.toString("utf8", 0, bytesRead);
  } finally {
    await file.close();
  }
}
