/** What the addresses of several kinds of servers have in common: lists of hosts, percent-encoded parts, and how they are refused. */
import { ConfigError } from "./errors.ts";

/** A TCP address. */
export interface ServerNode {
  /** A name or an address; of IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
}

const hostForm = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?$/;
const nodesMax = 64;

/** Reads parts of an address of `server`, which names it in errors. All raise `CONFIG_INVALID`, without repeating any of it. */
export function serverAddressReader(server: string) {
  const invalid = (why: string) =>
    new ConfigError("CONFIG_INVALID", `The address of ${server} cannot be used: ${why}.`);
  const nodeOf = (text: string, portDefault: number): ServerNode => {
    const [, bracketed, plain, digits] = hostForm.exec(text) ?? [];
    const host = bracketed ?? plain;
    const port = digits === undefined ? portDefault : Number(digits);
    if (host === undefined || port < 1 || port > 65_535)
      throw invalid("each host must be a name or an address, with a port or without");
    return { host, port };
  };
  return {
    /** The error, for raising it. */
    invalid,
    /** Of "host:1,host2". */
    nodesOf(hosts: string, portDefault: number): readonly [ServerNode, ...ServerNode[]] {
      const [first, ...others] = hosts.split(",").map((host) => nodeOf(host, portDefault));
      if (first === undefined || others.length >= nodesMax) throw invalid(`it must name 1 to ${nodesMax} hosts`);
      return [first, ...others];
    },
    /** Of percent-encoded text. */
    decoded(text: string): string {
      try {
        return decodeURIComponent(text);
      } catch {
        throw invalid("a % in it is not followed by two hexadecimal digits; write %25 for a %");
      }
    },
  };
}
