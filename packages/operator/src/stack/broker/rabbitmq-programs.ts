/** RabbitMQ's own programs on this machine. */
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../process/find-program.ts";

/** What a broker of a stack is run with. */
export interface RabbitmqPrograms {
  /** The server's start script. */
  readonly server: string;
  /** Erlang's port mapper. */
  readonly epmd: string;
}

/** Where Debian's package has a folder a version. */
const debianFolder = "/usr/lib/rabbitmq/lib";
const homebrewFolders = ["/opt/homebrew/opt/rabbitmq/sbin", "/usr/local/opt/rabbitmq/sbin"];

/**
 * Finds the newest server; undefined when it or Erlang is not installed. Debian's /usr/sbin/rabbitmq-server comes last: it changes to the
 * user rabbitmq, who cannot read a stack's folder.
 */
export function findRabbitmq(environment: Readonly<Record<string, string | undefined>>): RabbitmqPrograms | undefined {
  const folders = [...debianVersions().map((name) => join(debianFolder, name, "sbin")), ...homebrewFolders];
  const server =
    folders.map((folder) => join(folder, "rabbitmq-server")).find((path) => existsSync(path)) ??
    findProgram("rabbitmq-server", environment);
  const epmd = findProgram("epmd", environment);
  return server === undefined || epmd === undefined ? undefined : { server, epmd };
}

/** Newest first. */
function debianVersions(): string[] {
  try {
    const names = readdirSync(debianFolder).filter((name) => name.startsWith("rabbitmq_server-"));
    return names.sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
  } catch {
    return [];
  }
}
