/** Tips for the faces of Conduit, which ask the payments for them, wherever those run. */
import type { ServiceContext } from "rungs";
import type { Tips } from "../domain/model.ts";
import { ProblemError } from "../domain/problem.ts";
import { inputs, parse } from "../domain/validation.ts";
import type { Tables } from "../schema.ts";
import { payments } from "./payment-methods.ts";
import { hasPaymentSettings } from "./provider-setting.ts";

/** What people send is checked before it is sent on: then what does not fit is their mistake, and not this program's. */
export function calledTips({ call, environment }: Pick<ServiceContext<Tables>, "call" | "environment">): Tips {
  // Every page shows it, so it is a setting and not a call.
  const isOffered = hasPaymentSettings(environment);
  return {
    isOffered,
    async give(payerId, username, input, idempotencyKey) {
      if (!isOffered) throw new ProblemError(404, { tips: ["are not offered here"] });
      const tip = parse(inputs.newTip, input);
      return call(payments.give, { payerId, username, tip }, { idempotencyKey });
    },
    byId: (payerId, tipId) => call(payments.tip, { payerId, tipId }),
    given: async (userId, page) => call(payments.given, { userId, ...parse(inputs.tipPage, page) }),
    received: async (userId, page) => call(payments.received, { userId, ...parse(inputs.tipPage, page) }),
    balance: (userId) => call(payments.balance, { userId }),
  };
}
