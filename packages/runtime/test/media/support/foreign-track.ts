/** QuickTime files whose track lies in another file ("data reference", QuickTime File Format, 2001, page 66). */

/** Boxes from the movie down to the list of data references. */
const way = ["moov", "trak", "mdia", "minf", "dinf", "dref"];

/** The same movie, with its own pictures blanked, and a reference by alias to `fileName` in its folder. */
export function withForeignTrack(movie: Buffer, fileName: string): Buffer {
  const bytes = Buffer.from(movie);
  const media = boxIn(bytes, 0, bytes.length, "mdat");
  bytes.fill(0, media.start + 8, media.end);
  const boxes = [{ start: 0, end: bytes.length, header: 0 }];
  for (const name of way) {
    const { start, end } = boxes.at(-1) as (typeof boxes)[number];
    boxes.push({ ...boxIn(bytes, start + (boxes.at(-1)?.header ?? 0), end, name), header: 8 });
  }
  const list = boxes.at(-1) as (typeof boxes)[number];
  if (media.start > list.start) throw new Error("The movie's data has to come first, so that no offset moves.");
  // The list: size, name, version and flags, count; then its one entry.
  const entryStart = list.start + 16;
  const entry = aliasEntry(fileName);
  const grownBy = entry.length - (list.end - entryStart);
  for (const { start, header } of boxes)
    if (header > 0) bytes.writeUInt32BE(bytes.readUInt32BE(start) + grownBy, start);
  return Buffer.concat([bytes.subarray(0, entryStart), entry, bytes.subarray(list.end)]);
}

function boxIn(bytes: Buffer, from: number, to: number, name: string): { start: number; end: number } {
  for (let start = from; start + 8 <= to; ) {
    const size = bytes.readUInt32BE(start);
    if (bytes.toString("latin1", start + 4, start + 8) === name) return { start, end: start + size };
    if (size < 8) break;
    start += size;
  }
  throw new Error(`The movie has no ${name} where it should be.`);
}

/** An alias record, version 2: up none, down one level, with the name of the file as its absolute path. */
function aliasEntry(fileName: string): Buffer {
  const fixed = Buffer.alloc(12 + 150);
  fixed.write("alis", 4, "latin1");
  const record = 12;
  fixed.writeUInt16BE(2, record + 6);
  fixed.writeUInt8(1, record + 10);
  fixed.write("X", record + 11, "latin1");
  fixed.writeUInt8(fileName.length, record + 50);
  fixed.write(fileName, record + 51, "latin1");
  fixed.writeUInt16BE(1, record + 130);
  fixed.writeUInt16BE(1, record + 132);
  const path = Buffer.from(`X:${fileName}${fileName.length % 2 === 0 ? "" : "\0"}`, "latin1");
  const tail = Buffer.alloc(4 + path.length + 4);
  tail.writeUInt16BE(2, 0);
  tail.writeUInt16BE(path.length, 2);
  path.copy(tail, 4);
  tail.writeUInt16BE(0xffff, 4 + path.length);
  const entry = Buffer.concat([fixed, tail]);
  entry.writeUInt32BE(entry.length, 0);
  return entry;
}
