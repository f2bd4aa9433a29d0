/** Conduit with the fake payment provider beside it, for tests of tips. */
import { createHmac, randomBytes, randomUUID } from "node:crypto";
import {
  type StartedFakeProvider,
  type StartFakeProviderOptions,
  startFakeProvider,
} from "../../src/payments/fake-provider/start.ts";
import { ledgerFaults } from "../../src/payments/ledger-checks.ts";
import { reconcileDue } from "../../src/payments/payment-events.ts";
import type { Answer, Client } from "./client.ts";
import type { TestConduit } from "./conduit.ts";
import { type ConduitAtRung, type StartAtOptions, startConduitAt } from "./rungs.ts";
import type { Target } from "./target.ts";

export interface PayingConduit extends ConduitAtRung {
  readonly provider: StartedFakeProvider;
}

/** A provider that answers at once and does what amounts say; notices come soon. */
export const quickFlags = ["--delay-ms", "2", "--notice-delay-ms", "10", "--tricks"];

/**
 * Secrets under which Conduit takes the provider for somebody else's: `rungs up` then starts none of its own. With the port 0 it listens
 * on any.
 */
const foreign = (): StartedFakeProvider["settings"] => ({
  PAYMENT_PROVIDER_URL: "http://127.0.0.1:0",
  PAYMENT_PROVIDER_KEY: `test_${randomBytes(24).toString("base64url")}`,
  PAYMENT_WEBHOOK_SECRET: `testsec_${randomBytes(24).toString("base64url")}`,
});

/**
 * Starts both and joins them; at rung 1 with one shard unless set otherwise. `PAYMENT_TIMEOUT_MS` is 500 and tips are looked at again
 * after 200 ms unless set otherwise.
 */
export async function startPayingConduit(
  options: Partial<Pick<Target, "rung" | "shards" | "processes">> & {
    readonly environment?: Readonly<Record<string, string>>;
    readonly settings?: StartAtOptions["settings"];
    readonly provider?: StartFakeProviderOptions;
  } = {},
): Promise<PayingConduit> {
  const { rung = 1, shards = 1, processes = 1, settings = {} } = options;
  const provider = await startFakeProvider({ flags: quickFlags, settings: foreign(), ...options.provider });
  const environment = {
    ...provider.settings,
    PAYMENT_TIMEOUT_MS: "500",
    PAYMENT_CHECK_AFTER_MS: "200",
    ...options.environment,
  };
  const conduit = await startConduitAt({ rung, shards, processes, cache: "on" }, { environment, settings });
  await provider.client.registerWebhook(webhookOf(conduit));
  return {
    ...conduit,
    provider,
    async stop() {
      await conduit.stop();
      await provider.stop();
    },
  };
}

export const webhookOf = ({ url }: { readonly url: string }) => `${url}/api/payments/webhook`;

/** Gives a tip; the key is a new one unless given. */
export function give(
  payer: Client,
  username: string,
  tip: { readonly amount: number; readonly currency?: string; readonly message?: string },
  key: string = randomUUID(),
): Promise<Answer> {
  return payer.post(`/profiles/${username}/tips`, { tip: { currency: "EUR", ...tip } }, { "idempotency-key": key });
}

/** Asks until the answer is as wanted; raises with the last one after `timeoutMs`, default 20 s. */
export async function until<T>(
  ask: () => Promise<T>,
  isWanted: (answer: T) => boolean,
  timeoutMs = 20_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (isWanted(answer)) return answer;
    if (Date.now() > deadline) throw new Error(`Not within ${timeoutMs} ms; last: ${JSON.stringify(answer)}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The tip once it has ended. */
export async function ended(payer: Client, id: string) {
  const isFinal = ({ body }: Answer) => ["succeeded", "declined", "failed"].includes(body.tip.state);
  return (await until(() => payer.get(`/tips/${id}`), isFinal)).body.tip;
}

/** What the site owes a user in EUR, once it is as much as wanted. */
export function balanceOf(user: Client, wanted: number): Promise<number> {
  const ask = async () => {
    const { body } = await user.get("/balance");
    return body.balances.find(({ currency }: { currency: string }) => currency === "EUR")?.amount ?? 0;
  };
  return until(ask, (amount) => amount === wanted);
}

/** Runs the reconciliation now. */
export async function reconcile({ payments }: TestConduit): Promise<void> {
  await payments.home.transaction(async (tx) => tx.publish(reconcileDue, {}));
}

/** Every invariant of payments, when nothing is on its way. */
export async function faultsOf({ payments }: TestConduit): Promise<string[]> {
  const faults = await ledgerFaults(payments);
  return Object.entries(faults).flatMap(([kind, list]) => list.map((fault: string) => `${kind}: ${fault}`));
}

/** Charges the provider has made, by its own API. */
export async function chargesOf({
  url,
  settings,
}: StartedFakeProvider): Promise<
  { readonly id: string; readonly key: string; readonly status: string; readonly amount: number }[]
> {
  const answer = await fetch(`${url}/v1/charges?limit=1000`, {
    headers: { authorization: `Bearer ${settings.PAYMENT_PROVIDER_KEY}` },
  });
  return ((await answer.json()) as { data: [] }).data;
}

/** Sends a notice as the provider would, or as somebody who pretends to be it. Gives the status of the answer. */
export async function notify(
  conduit: PayingConduit,
  notice: object | string,
  options: { readonly secret?: string; readonly ageMs?: number; readonly header?: string } = {},
): Promise<number> {
  const body = typeof notice === "string" ? notice : JSON.stringify(notice);
  const seconds = Math.floor((Date.now() - (options.ageMs ?? 0)) / 1_000);
  const secret = options.secret ?? conduit.provider.settings.PAYMENT_WEBHOOK_SECRET;
  const signature = createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex");
  const answer = await fetch(webhookOf(conduit), {
    method: "POST",
    body,
    headers: {
      "content-type": "application/json",
      "payment-signature": options.header ?? `t=${seconds},v1=${signature}`,
    },
  });
  return answer.status;
}
