/** How well the provider behaves: calm unless told otherwise. Flags override the environment. */
import { parseArgs } from "node:util";

/** Settings of the fake provider; shares are from 0 to 1. */
export interface Behaviour {
  /** 0: any free port. */
  readonly port: number;
  /** Folder of its journal; undefined: everything is forgotten when it ends. */
  readonly dataFolder: string | undefined;
  /** What it draws by chance follows from this. */
  readonly seed: number;
  /** Mean time an answer takes. */
  readonly delayMs: number;
  /** Share of charges declined, beside amounts that end in 13. */
  readonly declineShare: number;
  /** Share of calls answered 500: half before, half after the charge was made. */
  readonly errorShare: number;
  /** Share of calls that charge and then never answer. */
  readonly silentShare: number;
  /** Share of calls that charge and then break the connection. */
  readonly resetShare: number;
  /** Share of charges that stay pending for a while. */
  readonly pendingShare: number;
  /** Mean wait before a notice is sent. */
  readonly noticeDelayMs: number;
  /** Share of notices sent late, by up to fifty times that wait, and so out of order. */
  readonly lateShare: number;
  /** Share of notices sent again though they were received. */
  readonly duplicateShare: number;
  /** Whether the end of an amount decides what happens to it; see `fateOf` in `charges.ts`. */
  readonly hasTricks: boolean;
  /** End when standard input does: so it never outlives whoever started it. */
  readonly endsWithStdin: boolean;
}

const shares = {
  "decline-share": "declineShare",
  "error-share": "errorShare",
  "silent-share": "silentShare",
  "reset-share": "resetShare",
  "pending-share": "pendingShare",
  "late-share": "lateShare",
  "duplicate-share": "duplicateShare",
} as const;

const text = { type: "string" } as const;

/** Reads flags such as `--decline-share 0.1`, else variables such as `PROVIDER_DECLINE_SHARE`. Raises on what it cannot read. */
export function readBehaviour(
  flags: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Behaviour {
  const names = ["port", "data", "seed", "delay-ms", "notice-delay-ms", ...Object.keys(shares)];
  const { values } = parseArgs({
    args: [...flags],
    options: {
      ...Object.fromEntries(names.map((name) => [name, text])),
      tricks: { type: "boolean" },
      "end-with-stdin": { type: "boolean" },
    },
  });
  const setting = (name: string): string | undefined => {
    const flag = (values as Record<string, unknown>)[name];
    return typeof flag === "string" ? flag : environment[`PROVIDER_${name.toUpperCase().replaceAll("-", "_")}`];
  };
  const number = (name: string, otherwise: number, max: number): number => {
    const value = Number(setting(name) ?? otherwise);
    if (value >= 0 && value <= max) return value;
    throw new Error(`--${name} is "${setting(name)}"; give a number from 0 to ${max}.`);
  };
  return {
    port: number("port", 0, 65_535),
    dataFolder: setting("data"),
    seed: number("seed", 1, 2 ** 32),
    delayMs: number("delay-ms", 150, 60_000),
    noticeDelayMs: number("notice-delay-ms", 300, 60_000),
    ...(Object.fromEntries(Object.entries(shares).map(([flag, name]) => [name, number(flag, 0, 1)])) as Record<
      (typeof shares)[keyof typeof shares],
      number
    >),
    hasTricks: values["tricks"] === true || environment["PROVIDER_TRICKS"] === "1",
    endsWithStdin: values["end-with-stdin"] === true,
  };
}
