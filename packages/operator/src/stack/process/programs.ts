/** Server programs of the machine: where they are, and how they come there. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { UnavailableError } from "rungs";
import type { CommandContext } from "../../command.ts";
import { findJava } from "../broker/kafka-config.ts";
import { findRabbitmq } from "../broker/rabbitmq-programs.ts";
import { findPostgres } from "../databases/postgres-programs.ts";
import { findProgram } from "./find-program.ts";

/** A program that a stack may need. */
export interface ServerProgram {
  readonly name: string;
  /** Packages of Debian and Ubuntu, a space between them. */
  readonly apt: string;
  /** Package of Homebrew. */
  readonly brew: string;
  /** Whether it is there with all it needs; default: whether it is found by its name. */
  readonly isThere?: (environment: Readonly<Record<string, string | undefined>>) => boolean;
  /** What is to be done beside installing the packages, where they do not bring it. */
  readonly alsoNeeded?: string;
}

/** Those that exist. */
export const serverPrograms = {
  nginx: { name: "nginx", apt: "nginx", brew: "nginx" },
  haproxy: { name: "haproxy", apt: "haproxy", brew: "haproxy" },
  redis: { name: "redis-server", apt: "redis-server", brew: "redis" },
  // It compiles its settings with a C compiler, which Debian's package brings.
  varnish: { name: "varnishd", apt: "varnish varnish-modules", brew: "varnish" },
  etcd: { name: "etcd", apt: "etcd-server", brew: "etcd" },
  patroni: {
    name: "patroni",
    apt: "patroni python3-etcd python3-psycopg2",
    brew: "patroni",
    isThere: hasPatroni,
  },
  postgres: {
    name: "PostgreSQL 15 or newer",
    apt: "postgresql",
    brew: "postgresql@17",
    isThere: (environment) => findPostgres(environment) !== undefined,
  },
  rabbitmq: {
    name: "rabbitmq-server",
    apt: "rabbitmq-server",
    brew: "rabbitmq",
    isThere: (environment) => findRabbitmq(environment) !== undefined,
  },
  gdnsd: { name: "gdnsd", apt: "gdnsd", brew: "gdnsd" },
  // Apache's own release: no package of Debian brings it.
  kafka: {
    name: "Kafka with Java",
    apt: "default-jre-headless",
    brew: "kafka",
    isThere: (environment) => findKafka(environment) !== undefined && findJava(environment) !== undefined,
    alsoNeeded: "unpack a release of https://kafka.apache.org and set KAFKA_HOME to its folder",
  },
} as const satisfies Record<string, ServerProgram>;

const policy = "/usr/sbin/policy-rc.d";
const installTimeoutMs = 600_000;

/**
 * Sees to it that all programs are there: installs the missing ones when told by `isInstalling` or by an answer at the terminal, as
 * root on Debian's family. Raises `PACKAGE_MISSING` with what to type.
 */
export async function ensurePrograms(
  programs: readonly ServerProgram[],
  { environment, confirm, output, signal }: Pick<CommandContext, "environment" | "confirm" | "output" | "signal">,
  isInstalling: boolean,
): Promise<void> {
  const isMissing = ({ name, isThere }: ServerProgram) =>
    !(isThere?.(environment) ?? findProgram(name, environment) !== undefined);
  const missing = programs.filter(isMissing);
  if (missing.length === 0) return;
  const packages = missing.flatMap(({ apt }) => apt.split(" "));
  const names = missing.map(({ name }) => name).join(" and ");
  if (canInstall(environment)) {
    const command = `apt-get install ${packages.join(" ")}`;
    if (isInstalling || (await confirm?.(`${names} is not installed. Install now (${command})?`)) === true) {
      output.remark(`Installing ${packages.join(", ")} ...`);
      await installByApt(packages, signal);
    }
  }
  const still = programs.filter(isMissing);
  if (still.length > 0) throw missingError(still, canInstall(environment));
}

/** Folder of Kafka's release, from KAFKA_HOME; undefined when it is not there. */
export function findKafka(environment: Readonly<Record<string, string | undefined>>): string | undefined {
  const home = environment["KAFKA_HOME"] ?? "";
  return home !== "" && existsSync(join(home, "libs")) ? home : undefined;
}

/** Patroni asks for its client of etcd only once it runs, and for one of PostgreSQL's two: whoever runs it must find them. */
function hasPatroni(environment: Readonly<Record<string, string | undefined>>): boolean {
  const path = findProgram("patroni", environment);
  if (path === undefined) return false;
  const python = /^#!\s*(\/\S*python\S*)/.exec(readFileSync(path, "utf8"))?.[1];
  if (python === undefined) return true;
  try {
    execFileSync(python, ["-c", "import etcd\ntry: import psycopg2\nexcept ImportError: import psycopg"], {
      stdio: "ignore",
      timeout: 10_000,
    });
    return true;
  } catch {
    return false;
  }
}

function missingError(missing: readonly ServerProgram[], canBeInstalled: boolean): UnavailableError {
  const names = missing.map(({ name }) => name).join(" and ");
  const of = (kind: "apt" | "brew") => missing.map((program) => program[kind]).join(" ");
  const further = missing.flatMap(({ alsoNeeded }) => (alsoNeeded === undefined ? [] : [` Then ${alsoNeeded}.`]));
  const how = canBeInstalled ? "Add --install to have it done here, or type" : "Install with";
  return new UnavailableError(
    "PACKAGE_MISSING",
    `This rung needs ${names}, not found on this machine. ${how}: apt-get install ${of("apt")} (Debian, Ubuntu), or brew install ${of("brew")} (macOS).${further.join("")}`,
    { canRetry: false },
  );
}

function canInstall(environment: Readonly<Record<string, string | undefined>>): boolean {
  return process.getuid?.() === 0 && findProgram("apt-get", environment) !== undefined;
}

/** No service may start by being installed: the stack starts servers of its own (invoke-rc.d(8), policy-rc.d). */
async function installByApt(packages: readonly string[], signal: AbortSignal): Promise<void> {
  const isOurs = !existsSync(policy);
  if (isOurs) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    const install = ["install", "-y", "--no-install-recommends", ...packages];
    if (await apt(install, signal)) return;
    if (!(await apt(["update"], signal)) || !(await apt(install, signal))) {
      throw new UnavailableError(
        "PACKAGE_MISSING",
        `apt-get could not install ${packages.join(", ")}; it says why above.`,
        {
          canRetry: true,
        },
      );
    }
  } finally {
    if (isOurs) rmSync(policy, { force: true });
  }
}

function apt(args: readonly string[], signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn("apt-get", ["-qq", ...args], {
      // What it tells belongs to people, not to the result on stdout.
      stdio: ["ignore", 2, 2],
      env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
      timeout: installTimeoutMs,
      signal,
    });
    child.once("error", () => resolve(false));
    child.once("exit", (code) => resolve(code === 0));
  });
}
