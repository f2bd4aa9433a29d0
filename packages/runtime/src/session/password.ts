/**
 * Passwords: argon2id on libuv's threads, never on the event loop, a bounded number at once.
 *
 * The gate: up to `concurrencyMax` hashes run, up to `queueMax` wait first come first served, one more is refused. So a
 * flood of sign-ins costs `concurrencyMax` x `memoryKib` of memory at most and leaves threads to files and name look-ups.
 */
import { hash, parseOptions, verify } from "@node-rs/argon2";
import { ConfigError, UnavailableError } from "../kernel/errors.ts";

/** Hashes and checks passwords. Raises `UnavailableError` with `OVERLOADED` when too many wait; try again later. */
export interface Passwords {
  /** Gives a PHC string with its own salt and parameters. Raises `RangeError` for a password outside the length bounds. */
  hash(password: string): Promise<string>;
  /**
   * Whether the password fits the hash; without a hash it takes as long and is false, so that the time taken does not
   * tell whether an account exists. Raises what argon2 raises for a damaged hash.
   */
  verifyOrDummy(password: string, hash: string | undefined): Promise<boolean>;
  /** Whether the hash was made with other parameters than these; then hash anew at the next successful sign-in. */
  needsRehash(hash: string): boolean;
}

/** Settings of {@link createPasswords}. */
export interface PasswordsOptions {
  /** Memory of one hash; default {@link argon2MemoryKib}. */
  readonly memoryKib?: number;
  /** Passes over it; default {@link argon2Passes}. */
  readonly passes?: number;
  /** Lanes; default {@link argon2Lanes}. */
  readonly lanes?: number;
  /** Hashes at once; default 2, half of libuv's threads. */
  readonly concurrencyMax?: number;
  /** Hashes that may wait; default 64, about a second's work. */
  readonly queueMax?: number;
  /** Characters a password needs to be hashed; default 1: the policy is the app's. OWASP advises 8 with a second factor, else 15. */
  readonly charactersMin?: number;
  /** Characters it may have; default 128. OWASP asks for 64 at least. */
  readonly charactersMax?: number;
}

/** OWASP Password Storage Cheat Sheet, argon2id: m=19456 (19 MiB), t=2, p=1 as its least memory-hungry first choice. */
export const argon2MemoryKib = 19_456;
/** See {@link argon2MemoryKib}. */
export const argon2Passes = 2;
/** See {@link argon2MemoryKib}. */
export const argon2Lanes = 1;

/** argon2id and version 1.3 in the library's enums, which type stripping cannot import. */
const argon2id = 2;
const version13 = 1;

/** Makes the password functions with their bounds. Raises `CONFIG_INVALID` for bounds that let nothing through. */
export function createPasswords(options: PasswordsOptions = {}): Passwords {
  const { memoryKib = argon2MemoryKib, passes = argon2Passes, lanes = argon2Lanes } = options;
  const { concurrencyMax = 2, queueMax = 64, charactersMin = 1, charactersMax = 128 } = options;
  if (concurrencyMax < 1 || charactersMin > charactersMax) {
    throw new ConfigError(
      "CONFIG_INVALID",
      `Passwords need concurrencyMax >= 1 and charactersMin <= charactersMax; they are ${concurrencyMax}, ${charactersMin} and ${charactersMax}.`,
    );
  }
  const settings = { algorithm: argon2id, memoryCost: memoryKib, timeCost: passes, parallelism: lanes } as const;
  const gate = createGate(concurrencyMax, queueMax);
  const dummy = dummyHash(memoryKib, passes, lanes);
  const isWithinBounds = (password: string) => {
    // Code units bound code points, so that a huge string is not taken apart first.
    if (password.length > charactersMax * 2) return false;
    const characters = [...password].length;
    return characters >= charactersMin && characters <= charactersMax;
  };

  return {
    async hash(password) {
      if (!isWithinBounds(password)) {
        throw new RangeError(`A password must have ${charactersMin} to ${charactersMax} characters.`);
      }
      return gate(() => hash(normalised(password), settings));
    },
    async verifyOrDummy(password, known) {
      // No hash was ever made of such a password; the dummy keeps the time the same.
      const target = isWithinBounds(password) ? known : undefined;
      const isRight = await gate(() => verify(target ?? dummy, normalised(password.slice(0, charactersMax * 2))));
      return target !== undefined && isRight;
    },
    needsRehash(known) {
      const made = parseOptions(known);
      return (
        made.algorithm !== argon2id ||
        made.version !== version13 ||
        made.memoryCost !== memoryKib ||
        made.timeCost !== passes ||
        made.parallelism !== lanes
      );
    },
  };
}

/** The same password typed on two systems may differ in code points; NIST SP 800-63B asks for normalisation before hashing. */
function normalised(password: string): string {
  return password.normalize("NFKC");
}

/** A well-formed hash that no password fits: checking against it costs the same as against a real one. */
function dummyHash(memoryKib: number, passes: number, lanes: number): string {
  const zeros = (bytes: number) => Buffer.alloc(bytes).toString("base64").replaceAll("=", "");
  return `$argon2id$v=19$m=${memoryKib},t=${passes},p=${lanes}$${zeros(16)}$${zeros(32)}`;
}

function createGate(concurrencyMax: number, queueMax: number): <R>(work: () => Promise<R>) => Promise<R> {
  const waiting: (() => void)[] = [];
  let running = 0;

  return async (work) => {
    if (running < concurrencyMax) {
      running++;
    } else {
      if (waiting.length >= queueMax) {
        throw new UnavailableError(
          "OVERLOADED",
          `${running} passwords are being hashed and ${waiting.length} wait, the limit. Try again in a second.`,
          { canRetry: true },
        );
      }
      // Whoever ends hands its place over, so `running` stays as it is.
      await new Promise<void>((resolve) => waiting.push(resolve));
    }
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) running--;
      else next();
    }
  };
}
