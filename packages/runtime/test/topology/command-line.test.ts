import { describe, expect, it } from "vitest";
import { parseCommandLine } from "../../src/topology/index.ts";

function refusal(...args: string[]): string {
  try {
    parseCommandLine(args);
  } catch (error) {
    expect(error).toMatchObject({ name: "ConfigError", code: "CONFIG_INVALID" });
    return (error as Error).message;
  }
  throw new Error("the command line was accepted");
}

describe("parseCommandLine", () => {
  it("reads nothing as nothing", () => {
    expect(parseCommandLine([])).toEqual({ flags: {}, showConfig: false, help: false });
  });

  it("reads every flag, with a space or an equals sign", () => {
    const args =
      "--port 80 --host=::1 --dir d --shards 2 --cache=off --rung 1 --log-level warn --config c.json --show-config -h";
    expect(parseCommandLine(args.split(" "))).toEqual({
      flags: { port: "80", host: "::1", dir: "d", shards: "2", cache: "off", rung: "1", "log-level": "warn" },
      config: "c.json",
      showConfig: true,
      help: true,
    });
  });

  it("keeps a negative number as a value, for the schema to refuse with its path", () => {
    expect(parseCommandLine(["--port", "-1"]).flags).toEqual({ port: "-1" });
  });

  it("reads --no-cache, and lets the last of two flags count", () => {
    expect(parseCommandLine(["--cache", "on", "--no-cache"]).flags).toEqual({ cache: "off" });
    expect(parseCommandLine(["--port", "1", "--port", "2"]).flags).toEqual({ port: "2" });
  });

  it("takes each --split, whatever characters it has", () => {
    expect(parseCommandLine(["--split", "g", "--strategy=range", "--split=n, o"]).flags).toEqual({
      strategy: "range",
      split: ["g", "n, o"],
    });
  });

  it("suggests the nearest flag for an unknown one, and lists all when none is near", () => {
    expect(refusal("--prot", "80")).toBe("Unknown flag --prot; did you mean --port?");
    expect(refusal("--shard=2")).toBe("Unknown flag --shard; did you mean --shards?");
    expect(refusal("--frobnicate")).toMatch(/^Unknown flag --frobnicate\. Known: --port, .*--show-config, --help\.$/);
    expect(refusal("-x")).toMatch(/^Unknown flag -x\./);
  });

  it("refuses a missing value, also where the next flag stands in its place", () => {
    expect(refusal("--port")).toBe("--port needs a value: --port 3000.");
    expect(refusal("--port", "--host")).toBe("--port needs a value: --port 3000.");
    expect(refusal("--dir=")).toBe("--dir needs a value: --dir .rungs.");
    expect(refusal("--help=yes")).toBe("--help takes no value.");
  });

  it("tells all mistakes at once", () => {
    expect(refusal("--prot", "80", "stray", "--shards", "2").split("\n")).toEqual([
      "2 problems in the configuration:",
      "- Unknown flag --prot; did you mean --port?",
      '- A word that belongs to no flag. Flags start with "--".',
    ]);
    expect(refusal("port", "80")).toContain('"port" belongs to no flag. Flags start with "--"; did you mean --port?');
  });

  it("never repeats a value", () => {
    for (const args of [
      ["postgres://u:hunter2@h"],
      ["--database-url=hunter2"],
      ["--hunter2:x@y"],
      ["--help=hunter2"],
    ]) {
      expect(refusal(...args)).not.toContain("hunter2");
    }
  });
});
