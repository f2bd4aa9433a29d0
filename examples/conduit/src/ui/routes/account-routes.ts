/** Sign in, sign up, settings, sign out. */
import type { FastifyInstance } from "fastify";
import { ProblemError } from "../../domain/problem.ts";
import { address, safePath } from "../address.ts";
import { loginPage, registerPage, settingsPage } from "../views/forms.ts";
import {
  fieldOf,
  goSignIn,
  goTo,
  isSignedIn,
  nextOf,
  parameterOf,
  sendPage,
  type UiOptions,
  visitOf,
} from "../visit.ts";

/** Forms of signed-out people are guarded too: nobody is to be signed in to an account that is not theirs. */
const guarded = { config: { csrf: "always" } } as const;

export function accountRoutes(pages: FastifyInstance, options: UiOptions): void {
  const { accounts } = options.conduit;

  for (const [path, page] of [
    ["/login", loginPage],
    ["/register", registerPage],
  ] as const) {
    pages.get(path, async (request, reply) => {
      const visit = await visitOf(request, options);
      const next = safePath(parameterOf(request, "next")) ?? address.home;
      if (isSignedIn(visit)) return goTo(reply, next);
      return sendPage(reply, visit, page(visit, next, { values: { username: "", email: "" } }));
    });
  }

  pages.post("/login", guarded, async (request, reply) => {
    const email = fieldOf(request, "email");
    const next = nextOf(request, address.home);
    try {
      const account = await options.signIn({ email, password: fieldOf(request, "password") }, request.ip);
      await reply.startSession(account.id);
      return goTo(reply, next);
    } catch (error) {
      if (!isAnswerable(error)) throw error;
      const visit = await visitOf(request, options);
      if (error.retryAfterMs !== undefined) reply.header("retry-after", String(Math.ceil(error.retryAfterMs / 1_000)));
      const errors = error.statusCode === 401 ? { "email or password": ["is invalid"] } : error.errors;
      return sendPage(reply, visit, loginPage(visit, next, { values: { email }, errors }), error.statusCode);
    }
  });

  pages.post("/register", guarded, async (request, reply) => {
    const values = { username: fieldOf(request, "username"), email: fieldOf(request, "email") };
    const next = nextOf(request, address.home);
    try {
      const account = await accounts.register({ ...values, password: fieldOf(request, "password") });
      await reply.startSession(account.id);
      return goTo(reply, next);
    } catch (error) {
      if (!isAnswerable(error)) throw error;
      const visit = await visitOf(request, options);
      return sendPage(reply, visit, registerPage(visit, next, { values, errors: error.errors }), error.statusCode);
    }
  });

  pages.post("/logout", async (request, reply) => {
    const userId = (await request.session())?.userId ?? null;
    await reply.endSession();
    if (userId !== null) await options.sessionsEnded(userId);
    return goTo(reply, address.home);
  });

  pages.get("/settings", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, "/settings");
    return sendPage(reply, visit, settingsPage(visit, { values: visit.viewer }));
  });

  pages.post("/settings", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, "/settings");
    const values = {
      image: fieldOf(request, "image"),
      username: fieldOf(request, "username"),
      bio: fieldOf(request, "bio"),
      email: fieldOf(request, "email"),
    };
    const password = fieldOf(request, "password");
    try {
      const account = await accounts.update(visit.viewer.id, { ...values, ...(password !== "" && { password }) });
      const session = await request.session();
      if (password !== "" && session !== undefined) {
        await options.endOtherSessions({ userId: account.id, token: session.token });
      }
      return goTo(reply, address.profile(account.username));
    } catch (error) {
      if (!isAnswerable(error)) throw error;
      return sendPage(reply, visit, settingsPage(visit, { values, errors: error.errors }), error.statusCode);
    }
  });
}

/** Whether an error is about what was typed, so that the form comes back with it. */
export function isAnswerable(error: unknown): error is ProblemError {
  return error instanceof ProblemError && error.statusCode !== 404 && error.statusCode !== 403;
}
