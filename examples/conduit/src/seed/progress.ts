/** A progress line: share done, rate and time left; redrawn in place on a terminal, one line a step elsewhere. */
export interface Progress {
  /** Notes work done since the last call. */
  advance(count: number): void;
  end(): void;
}

const redrawEveryMs = 100;

export function progressLine(options: {
  readonly title: string;
  readonly total: number;
  readonly stream?: NodeJS.WriteStream;
}): Progress {
  const { title, total, stream = process.stdout } = options;
  const started = performance.now();
  let done = 0;
  let drawn = 0;

  function line(): string {
    const share = total === 0 ? 1 : Math.min(1, done / total);
    const filled = Math.round(share * 24);
    const seconds = (performance.now() - started) / 1_000;
    const left =
      share > 0 && share < 1 ? `, ${Math.ceil((seconds / share) * (1 - share))} s left` : `, ${seconds.toFixed(1)} s`;
    return `${title.padEnd(16)} ${"#".repeat(filled)}${".".repeat(24 - filled)} ${String(Math.floor(share * 100)).padStart(3)}%  ${done}/${total}${left}`;
  }

  return {
    advance(count) {
      done += count;
      if (!stream.isTTY || performance.now() - drawn < redrawEveryMs) return;
      drawn = performance.now();
      stream.write(`\r${line()}\u001b[K`);
    },
    end() {
      stream.write(stream.isTTY ? `\r${line()}\u001b[K\n` : `${line()}\n`);
    },
  };
}
