/** Delivery of notices: signed, repeated until they are received, and as late, doubled and out of order as told. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "rungs";
import { signWebhook } from "../webhook-signature.ts";
import type { Behaviour } from "./behaviour.ts";
import type { Charges, FakeEvent } from "./charges.ts";

const deliveriesMax = 16;
const deliveryTimeoutMs = 5_000;
const retryMsMax = 15_000;
/** About three days with the longest wait, as Stripe does. */
const attemptsMax = 17_000;

/** Sends what is undelivered, now and whenever {@link NoticeSender.wake} is called, until stopped. */
export class NoticeSender {
  private readonly charges: Charges;
  private readonly secret: string;
  private readonly behaviour: Behaviour;
  private readonly random: Random;
  private readonly begun = new Set<string>();
  private readonly stopping = new AbortController();
  private underWay = 0;
  private readonly waiting: (() => void)[] = [];

  constructor(options: {
    readonly charges: Charges;
    readonly secret: string;
    readonly behaviour: Behaviour;
    readonly random: Random;
  }) {
    this.charges = options.charges;
    this.secret = options.secret;
    this.behaviour = options.behaviour;
    this.random = options.random;
  }

  /** Begins with events that are new since. */
  wake(): void {
    for (const event of this.charges.undelivered.values()) {
      if (this.begun.has(event.id)) continue;
      this.begun.add(event.id);
      // What ends it is the end of the process.
      this.deliver(event).catch(() => {});
    }
  }

  stop(): void {
    this.stopping.abort();
  }

  private async deliver(event: FakeEvent): Promise<void> {
    const { noticeDelayMs, lateShare, duplicateShare } = this.behaviour;
    const isLate = this.random.next() < lateShare;
    await this.pause(noticeDelayMs * (isLate ? 1 + 49 * this.random.next() : 0.5 + this.random.next()));
    for (let attempt = 1; attempt <= attemptsMax; attempt++) {
      if (await this.send(event)) break;
      await this.pause(Math.min(retryMsMax, 200 * 2 ** Math.min(attempt - 1, 10)));
    }
    this.charges.delivered(event.id);
    this.begun.delete(event.id);
    for (let copy = 0; copy < 3 && this.random.next() < duplicateShare; copy++) {
      await this.pause(noticeDelayMs * 2 * this.random.next());
      await this.send(event);
    }
  }

  private async send(event: FakeEvent): Promise<boolean> {
    const url = this.charges.webhookUrl;
    if (url === undefined) return false;
    await this.takeTurn();
    try {
      const body = JSON.stringify(event);
      const answer = await fetch(url, {
        method: "POST",
        body,
        headers: {
          "content-type": "application/json",
          "payment-signature": signWebhook(body, this.secret, Date.now()),
        },
        signal: AbortSignal.any([this.stopping.signal, AbortSignal.timeout(deliveryTimeoutMs)]),
      });
      await answer.arrayBuffer();
      return answer.ok;
    } catch {
      return false;
    } finally {
      this.underWay--;
      this.waiting.shift()?.();
    }
  }

  private async takeTurn(): Promise<void> {
    while (this.underWay >= deliveriesMax) await new Promise<void>((resolve) => this.waiting.push(resolve));
    this.underWay++;
  }

  private async pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.stopping.signal });
  }
}
