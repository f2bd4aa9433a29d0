/** Replies of memcached's meta protocol, cut out of a stream of bytes. Source: memcached, doc/protocol.txt, "Meta Commands". */

/** One reply. */
export interface MetaReply {
  /** HD stored or found, VA with a value, EN or NF not there, NS not stored, EX changed meanwhile, MN the end of a `mn`. */
  readonly status: string;
  /** Flags such as `W`, `Z`, `c123`, by their first letter. */
  readonly flags: ReadonlyMap<string, string>;
  readonly value: Buffer | undefined;
}

const lineBytesMax = 8_192;

/** Collects bytes and gives whole replies. */
export class MetaReplyReader {
  private rest: Buffer = Buffer.alloc(0);

  /** Raises for bytes that are no reply, after which the connection is of no use. */
  read(bytes: Buffer): MetaReply[] {
    this.rest = this.rest.length === 0 ? bytes : Buffer.concat([this.rest, bytes]);
    const replies: MetaReply[] = [];
    for (;;) {
      const end = this.rest.indexOf("\r\n");
      if (end === -1) {
        if (this.rest.length > lineBytesMax) throw new Error("memcached sent a line without an end");
        return replies;
      }
      const [status = "", ...words] = this.rest.toString("latin1", 0, end).split(" ");
      if (/^(?:CLIENT_|SERVER_)?ERROR$/.test(status)) {
        this.rest = this.rest.subarray(end + 2);
        replies.push({ status, flags: new Map([["message", words.join(" ").slice(0, 200)]]), value: undefined });
        continue;
      }
      const size = status === "VA" ? Number(words.shift()) : undefined;
      if (!/^[A-Z]{2}$/.test(status) || (size !== undefined && !(size >= 0))) {
        throw new Error("memcached sent what is no reply of its meta protocol");
      }
      const whole = end + 2 + (size === undefined ? 0 : size + 2);
      if (this.rest.length < whole) return replies;
      // A copy, so that a small value does not keep a large piece of the stream in memory.
      const value = size === undefined ? undefined : Buffer.from(this.rest.subarray(end + 2, end + 2 + size));
      this.rest = this.rest.subarray(whole);
      replies.push({ status, flags: new Map(words.map((word) => [word.slice(0, 1), word.slice(1)])), value });
    }
  }
}
