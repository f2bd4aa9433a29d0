/**
 * Health as two questions: liveness (the process works; never touches another component, or a database outage would
 * restart every process) and readiness (send me requests).
 */
import { type Clock, systemClock } from "../kernel/clock.ts";

/** A component that must work for requests to be answered. */
export interface ReadinessCheck {
  readonly name: string;
  check(): Promise<unknown>;
  /** False: told when it fails, but requests go on coming, as most do not need it. Default true. */
  readonly isEssential?: boolean;
}

/** Answer to readiness: which checks fail, essential or not, without their reasons, which may hold addresses. */
export interface Readiness {
  readonly isReady: boolean;
  readonly failing: readonly string[];
}

const checkTimeoutMs = 1_000;
/** Health checks come from every balancer several times a second; the components are asked at most twice. */
const answerAgeMaxMs = 500;

/** Collects checks and answers for all of them. */
export class Health {
  isDraining = false;
  private readonly checks: ReadinessCheck[];
  private readonly clock: Clock;
  /** What came of checks that nobody waits for. */
  private readonly asides = new Map<ReadinessCheck, boolean>();
  private answer: { at: number; readiness: Promise<Readiness> } | undefined;

  constructor(checks: readonly ReadinessCheck[] = [], clock: Clock = systemClock) {
    this.checks = [...checks];
    this.clock = clock;
  }

  readiness(): Promise<Readiness> {
    if (this.isDraining) return Promise.resolve({ isReady: false, failing: ["draining"] });
    const now = this.clock.monotonic();
    if (this.answer === undefined || now - this.answer.at > answerAgeMaxMs)
      this.answer = { at: now, readiness: this.runChecks() };
    return this.answer.readiness;
  }

  private async runChecks(): Promise<Readiness> {
    const results = await Promise.all(
      this.checks.map(async (check) => ({
        check,
        isWorking: await (check.isEssential === false ? this.aside(check) : isWorking(check)),
      })),
    );
    const failing = results.filter((result) => !result.isWorking).map(({ check }) => check);
    return {
      isReady: failing.every(({ isEssential }) => isEssential === false),
      failing: failing.map(({ name }) => name),
    };
  }

  /** What the check gave last time: one that is slow must not make the balancer think that the process is. */
  private async aside(check: ReadinessCheck): Promise<boolean> {
    const asked = isWorking(check).then((result) => {
      this.asides.set(check, result);
      return result;
    });
    return this.asides.get(check) ?? asked;
  }
}

async function isWorking(check: ReadinessCheck): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), checkTimeoutMs);
  });
  const asked = check.check().then(
    () => true,
    () => false,
  );
  const result = await Promise.race([asked, late]);
  clearTimeout(timer);
  return result;
}
