/** The provider's charges, one a key, and what becomes of each. */
import { randomUUID } from "node:crypto";
import type { Random } from "rungs";
import type { Behaviour } from "./behaviour.ts";
import type { Journal } from "./journal.ts";

export type ChargeStatus = "pending" | "succeeded" | "declined";

/** A charge as the API shows it. */
export interface FakeCharge {
  readonly id: string;
  readonly key: string;
  readonly amount: number;
  readonly currency: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly created: number;
  status: ChargeStatus;
  decline_code: string | null;
  /** What the first call was answered with: repetitions under the key are too. */
  readonly firstStatus: ChargeStatus;
}

/** A notice to be delivered. */
export interface FakeEvent {
  readonly id: string;
  readonly type: `charge.${ChargeStatus}`;
  readonly created: number;
  readonly charge: Omit<FakeCharge, "firstStatus">;
}

/** What happens to a call. "before" and "after" tell whether the charge had been made. */
export type Fate =
  | { readonly kind: "answer"; readonly outcome: ChargeStatus; readonly later?: "succeeded" | "declined" }
  | { readonly kind: "error before" | "error after" | "silence after" | "reset after" | "refuse" };

type ChargeRecord =
  | { readonly charge: FakeCharge }
  | { readonly settled: string; readonly status: ChargeStatus; readonly decline_code: string | null }
  | { readonly event: FakeEvent }
  | { readonly delivered: string }
  | { readonly webhook: string };

const chargesMax = 2_000_000;

/** The provider's state, rebuilt from its journal. */
export class Charges {
  readonly undelivered = new Map<string, FakeEvent>();
  webhookUrl: string | undefined;
  private readonly journal: Journal;
  private readonly byId = new Map<string, FakeCharge>();
  private readonly byKey = new Map<string, FakeCharge>();

  constructor(journal: Journal) {
    this.journal = journal;
    for (const record of journal.records) this.apply(record as ChargeRecord);
  }

  find(id: string): FakeCharge | undefined {
    return this.byId.get(id);
  }

  findByKey(key: string): FakeCharge | undefined {
    return this.byKey.get(key);
  }

  /** In the order they were made. */
  list(offset: number, limit: number): FakeCharge[] {
    return [...this.byId.values()].slice(offset, offset + limit);
  }

  get pending(): FakeCharge[] {
    return [...this.byId.values()].filter(({ status }) => status === "pending");
  }

  make(charge: Omit<FakeCharge, "id" | "created" | "decline_code" | "firstStatus">): FakeCharge {
    if (this.byId.size >= chargesMax) throw new Error(`This fake provider keeps ${chargesMax} charges and no more.`);
    const made: FakeCharge = {
      ...charge,
      id: `ch_${randomUUID().replaceAll("-", "")}`,
      created: Math.floor(Date.now() / 1_000),
      decline_code: charge.status === "declined" ? "insufficient_funds" : null,
      firstStatus: charge.status,
    };
    this.write({ charge: made });
    // As real ones do: two notices of one charge, which may arrive in any order.
    if (made.status !== "pending") this.announce({ ...made, status: "pending", decline_code: null });
    this.announce(made);
    return made;
  }

  settle(id: string, status: "succeeded" | "declined"): void {
    const charge = this.byId.get(id);
    if (charge === undefined || charge.status !== "pending") return;
    this.write({ settled: id, status, decline_code: status === "declined" ? "do_not_honor" : null });
    this.announce(charge);
  }

  delivered(eventId: string): void {
    this.write({ delivered: eventId });
  }

  sendTo(url: string): void {
    this.write({ webhook: url });
  }

  private announce(charge: FakeCharge): void {
    const { firstStatus, ...shown } = charge;
    const id = `evt_${randomUUID().replaceAll("-", "")}`;
    const created = Math.floor(Date.now() / 1_000);
    this.write({ event: { id, type: `charge.${charge.status}`, created, charge: shown } });
  }

  private write(record: ChargeRecord): void {
    this.journal.append(record);
    this.apply(record);
  }

  private apply(record: ChargeRecord): void {
    if ("charge" in record) {
      const charge = { ...record.charge };
      this.byId.set(charge.id, charge);
      this.byKey.set(charge.key, charge);
    } else if ("settled" in record) {
      const charge = this.byId.get(record.settled);
      if (charge !== undefined) Object.assign(charge, { status: record.status, decline_code: record.decline_code });
    } else if ("event" in record) {
      this.undelivered.set(record.event.id, record.event);
    } else if ("delivered" in record) {
      this.undelivered.delete(record.delivered);
    } else {
      this.webhookUrl = record.webhook;
    }
  }
}

/** What an amount's last two digits bring about, at the key's first call only where it says "first". */
const tricks: Readonly<Record<number, Fate>> = {
  17: { kind: "silence after" },
  19: { kind: "error after" },
  23: { kind: "error before" },
  27: { kind: "reset after" },
  29: { kind: "answer", outcome: "pending", later: "succeeded" },
  31: { kind: "answer", outcome: "pending", later: "declined" },
  37: { kind: "refuse" },
};

/** Decides a call by its amount, and else by chance. `isFirst`: no call under its key went wrong before. */
export function fateOf(amount: number, isFirst: boolean, behaviour: Behaviour, random: Random): Fate {
  const end = amount % 100;
  const outcome = end === 13 || random.next() < behaviour.declineShare ? "declined" : "succeeded";
  const trick = behaviour.hasTricks ? tricks[end] : undefined;
  if (trick !== undefined && (isFirst || trick.kind === "answer" || trick.kind === "refuse")) return trick;
  const chance = random.next();
  const { errorShare, silentShare, resetShare, pendingShare } = behaviour;
  if (chance < errorShare / 2) return { kind: "error before" };
  if (chance < errorShare) return { kind: "error after" };
  if (chance < errorShare + silentShare) return { kind: "silence after" };
  if (chance < errorShare + silentShare + resetShare) return { kind: "reset after" };
  if (random.next() < pendingShare) return { kind: "answer", outcome: "pending", later: outcome };
  return { kind: "answer", outcome };
}
