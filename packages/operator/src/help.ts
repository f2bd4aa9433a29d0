/** The help of a command: citty's usage with examples below it. */
import { stripVTControlCharacters } from "node:util";
import { renderUsage } from "citty";
import type { FoundCommand } from "./parse.ts";

const exitCodes = `EXIT CODES

  0  done
  1  failed in a way that was not foreseen
  2  the command line, a setting or a file is wrong
  3  what was named does not exist
  4  a server that is needed does not run or did not answer; the same command may work later`;

/** Text of `--help`; without colours, so that it reads the same in a pipe. */
export async function helpOf({ command, name }: FoundCommand): Promise<string> {
  const parent = name.split(" ").slice(0, -1).join(" ");
  const below = Object.fromEntries(
    await Promise.all(
      Object.entries(command.commands ?? {}).map(async ([word, open]) => [word, (await open()).definition] as const),
    ),
  );
  const definition =
    Object.keys(below).length === 0 ? command.definition : { ...command.definition, subCommands: below };
  const usage = await renderUsage(definition, parent === "" ? undefined : { meta: { name: parent } });
  const width = Math.max(0, ...command.examples.map(([line]) => line.length));
  const examples = command.examples.map(([line, what]) => `  ${line.padEnd(width)}  ${what}`.trimEnd());
  return [
    stripVTControlCharacters(usage).trimEnd(),
    ...(examples.length === 0 ? [] : ["", "EXAMPLES", "", ...examples]),
    "",
    exitCodes,
  ].join("\n");
}
