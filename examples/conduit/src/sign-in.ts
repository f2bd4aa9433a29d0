/** Signing in under the login throttle: the one way in, for the API and for the pages. */
import type { LoginThrottle } from "rungs/session";
import type { Account, Accounts } from "./domain/model.ts";
import { ProblemError } from "./domain/problem.ts";
import { comparable, inputs, parse } from "./domain/validation.ts";

/** Checks email and password from `address`; raises a 401 problem for a wrong pair, 429 after too many. */
export type SignIn = (credentials: unknown, address: string) => Promise<Account>;

export function createSignIn(accounts: Accounts, throttle: LoginThrottle): SignIn {
  return async (credentials, address) => {
    const { email, password } = parse(inputs.credentials, credentials);
    const attempt = { account: comparable(email), address };
    const verdict = await throttle.attempt(attempt);
    if (!verdict.isAllowed) {
      throw new ProblemError(
        429,
        { credentials: ["were wrong too often; please wait before the next try"] },
        verdict.retryAfterMs,
      );
    }
    try {
      const account = await accounts.authenticate({ email, password });
      await throttle.succeeded(attempt);
      return account;
    } catch (error) {
      const wasWrong = error instanceof ProblemError && error.statusCode === 401;
      if (!wasWrong) await throttle.abandoned(attempt);
      throw error;
    }
  };
}
