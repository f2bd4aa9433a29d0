/** Tips: giving one, watching it, and the viewer's own. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { IdempotencyError, readIdempotencyKey } from "rungs/idempotency";
import { minorUnitsOf } from "../../domain/money.ts";
import type { ProblemErrors } from "../../domain/problem.ts";
import { address } from "../address.ts";
import { formCurrency, tipFormPage, tipPage, tipsPage } from "../views/tips.ts";
import {
  fieldOf,
  goSignIn,
  goTo,
  isSignedIn,
  type SignedInVisit,
  sendPage,
  type UiOptions,
  visitOf,
} from "../visit.ts";
import { isAnswerable } from "./account-routes.ts";

type Username = { Params: { username: string } };

export function tipRoutes(pages: FastifyInstance, options: UiOptions): void {
  const { tips, accounts } = options.conduit;

  pages.get("/tips", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.tips);
    const { id } = visit.viewer;
    const [given, received, balances] = await Promise.all([
      tips.given(id, { limit: 50 }),
      tips.received(id, { limit: 50 }),
      tips.balance(id),
    ]);
    return sendPage(reply, visit, tipsPage(visit, { given, received, balances }));
  });

  pages.get<{ Params: { id: string } }>("/tips/:id", async (request, reply) => {
    const visit = await visitOf(request, options);
    if (!isSignedIn(visit)) return goSignIn(reply, address.tip(request.params.id));
    return sendPage(reply, visit, tipPage(visit, await tips.byId(visit.viewer.id, request.params.id)));
  });

  pages.get<Username>("/profile/:username/tip", async (request, reply) => {
    const visit = await visitOf(request, options);
    const { username } = request.params;
    if (!isSignedIn(visit)) return goSignIn(reply, address.tipForm(username));
    const profile = await accounts.profile(username, visit.viewer.id);
    if (!tips.isOffered || profile.username === visit.viewer.username) {
      return goTo(reply, address.profile(profile.username));
    }
    return sendPage(reply, visit, tipFormPage(visit, profile));
  });

  pages.post<Username>("/profile/:username/tips", async (request, reply) => {
    const visit = await visitOf(request, options);
    const { username } = request.params;
    if (!isSignedIn(visit)) return goSignIn(reply, address.tipForm(username));
    const key = readIdempotencyKey(fieldOf(request, "key"));
    const [choice, own] = [fieldOf(request, "amount"), fieldOf(request, "own")];
    // Whoever types an amount of their own means it, whichever choice is still marked.
    const isOwn = choice === "own" || own.trim() !== "";
    const amount = isOwn ? minorUnitsOf(own, formCurrency) : Number(choice);
    const input = { amount: amount ?? Number.NaN, currency: formCurrency, message: fieldOf(request, "message") };
    try {
      const { tip } = await tips.give(visit.viewer.id, username, input, key);
      return goTo(reply, address.tip(tip.id));
    } catch (error) {
      const problem = problemOf(error);
      if (problem === undefined) throw error;
      return showForm(visit, request, reply, problem);
    }
  });

  async function showForm(
    visit: SignedInVisit,
    request: FastifyRequest<Username>,
    reply: FastifyReply,
    { status, errors }: { readonly status: number; readonly errors: ProblemErrors },
  ) {
    const profile = await accounts.profile(request.params.username, visit.viewer.id);
    const own = fieldOf(request, "own");
    const amount = own.trim() === "" ? fieldOf(request, "amount") : "own";
    const values = { amount, own, message: fieldOf(request, "message") };
    const here = address.tipForm(profile.username);
    return sendPage(reply, { ...visit, here }, tipFormPage({ ...visit, here }, profile, { values, errors }), status);
  }
}

/** What the form comes back with; undefined for what is not about the form. */
function problemOf(error: unknown): { readonly status: number; readonly errors: ProblemErrors } | undefined {
  // Sent before, and then changed by way of the browser's history: the form that comes back has a key of its own.
  if (error instanceof IdempotencyError) {
    return {
      status: 422,
      errors: { "this form": ["was sent before with other values; send it again if you mean it"] },
    };
  }
  if (!isAnswerable(error)) return undefined;
  const { amount, ...others } = error.errors;
  const errors = amount === undefined ? others : { amount: ["must be from 0.01 to 1,000.00"], ...others };
  return { status: error.statusCode, errors };
}
