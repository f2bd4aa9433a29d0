/** Replaces a few objects over and over until it is killed. Each version is one letter, and its type names the letter. */
import { Readable } from "node:stream";
import { diskObjects } from "../../../src/storage/drivers/disk-objects.ts";

const [directory = "", round = "0"] = process.argv.slice(2);
const store = diskObjects({ directory });
const letters = "abcdefghij";

for (let version = 0; version < 100_000; version++) {
  const letter = letters[(version + Number(round)) % letters.length] as string;
  const content = letter.repeat(1_000 + (version % 7) * 40_000);
  await Promise.all(
    [1, 2, 3].map((number) =>
      store.put(`folder-${number}/object`, Readable.from([content]), {
        contentType: `text/${letter}`,
        sizeBytesMax: content.length,
      }),
    ),
  );
  if (version === 0) process.send?.("writing");
}
