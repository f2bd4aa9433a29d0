/** Tips: the form on the pages of those who can be given one, a tip's own page, and the viewer's given and received ones. */
import { randomUUID } from "node:crypto";
import type { Balance, Profile, ReceivedTip, Tip } from "../../domain/model.ts";
import { money } from "../../domain/money.ts";
import type { ProblemErrors } from "../../domain/problem.ts";
import { address } from "../address.ts";
import { attributes, type HtmlValue, html, type SafeHtml } from "../html.ts";
import type { SignedInVisit, Visit } from "../visit.ts";
import { layout } from "./layout.ts";
import { avatar, errorList, hidden, time } from "./parts.ts";

/** The currency of the form; the API knows more. */
export const formCurrency = "EUR";
const choices = [200, 500, 1_000] as const;
const choiceDefault = 500;

/** The form as it was sent; amounts as typed. */
export interface TipFormValues {
  /** Minor units of a choice, or "own". */
  readonly amount: string;
  readonly own: string;
  readonly message: string;
}

interface TipFormState {
  readonly values?: TipFormValues;
  readonly errors?: ProblemErrors | undefined;
}

/** The button that opens the form; nothing for oneself and where tips are not offered. */
export function tipBox(visit: Visit, { username }: Pick<Profile, "username">): SafeHtml | undefined {
  if (visit.offersTips !== true || visit.viewer?.username === username) return undefined;
  const label = html`<i class="ion-cash" aria-hidden="true"></i>Tip ${username}`;
  if (visit.viewer === undefined) {
    return html`${style(visit)}<a class="btn btn-sm btn-outline-secondary action-btn" href="${address.login(address.tipForm(username))}">${label}</a>`;
  }
  return html`${style(visit)}<details class="tip-box"><summary class="btn btn-sm btn-outline-secondary action-btn">${label}</summary>${tipForm(visit, username)}</details>`;
}

/** Of its own, because most pages show nothing of tips. */
function style(visit: Visit): SafeHtml {
  return html`<link rel="stylesheet" href="${visit.asset("tips.css")}">`;
}

/** Works without a script. Its key, made anew each time it is shown, makes one tip of however many times it is sent. */
function tipForm(visit: Visit, username: string, { values, errors }: TipFormState = {}): SafeHtml {
  const { amount = String(choiceDefault), own = "", message = "" } = values ?? {};
  const choice = (value: string, label: HtmlValue) =>
    html`<label class="choice"><input type="radio" name="amount" value="${value}"${attributes({ checked: amount === value, required: true })}><span>${label}</span></label>`;
  return html`<form class="tip-form" method="post" action="${address.giveTip(username)}">${hidden(visit)}<input type="hidden" name="key" value="${randomUUID()}">
<fieldset class="choices"><legend>How much?</legend>${choices.map((minor) => choice(String(minor), money(minor, formCurrency)))}${choice("own", "Other")}
<label class="own-amount"><span class="visually-hidden">Other amount in ${formCurrency}</span><input class="form-control" id="field-own" name="own" inputmode="decimal" maxlength="12" autocomplete="off" placeholder="Other, e.g. 12.50" value="${own}"${attributes({ "aria-invalid": errors?.["amount"] !== undefined && "true" })}></label></fieldset>
<div class="form-group"><label for="field-message">Message</label><input class="form-control" id="field-message" name="message" maxlength="280" autocomplete="off" placeholder="Say something nice (optional)" value="${message}"></div>
<button class="btn btn-primary" type="submit">Send tip</button></form>`;
}

/** The form on a page of its own: where it comes back to with what was wrong. */
export function tipFormPage(visit: SignedInVisit, profile: Profile, state: TipFormState = {}): SafeHtml {
  const title = `Tip ${profile.username}`;
  const body = html`${style(visit)}<div class="container page form-page tip-page"><p>${avatar(profile, 72)}</p><h1>${title}</h1>${errorList(state.errors, ["message"])}${tipForm(visit, profile.username, state)}</div>`;
  return layout(visit, { title, className: "tips-page", body });
}

/** A tip as its payer sees it; the script keeps it up to date. */
export function tipPage(visit: SignedInVisit, tip: Tip): SafeHtml {
  const { id, amount, currency, to, message, createdAt } = tip;
  const name = to?.username ?? "somebody who left";
  const title = `${money(amount, currency)} for ${name}`;
  const isFinal = isEnded(tip);
  const body = html`${style(visit)}<div class="container page form-page tip-page">${to !== null && html`<p>${avatar(to, 72)}</p>`}<h1>${title}</h1>
<div data-region="tip" data-live-tip="${id}"${attributes({ "data-pending": !isFinal })}><p class="tip-state is-${tip.state}" role="status">${stateOf(tip, name)}</p></div>
${message !== "" && html`<blockquote class="tip-message">${message}</blockquote>`}<p class="muted">Sent on ${time(createdAt)}</p>
<p class="form-actions">${to !== null && html`<a class="btn btn-outline-secondary" href="${address.profile(to.username)}">Back to ${to.username}</a>`}<a class="btn btn-outline-secondary" href="${address.tips}">All your tips</a></p></div>
<script src="${visit.asset("tips.js")}" defer></script>`;
  return layout(visit, { title, className: "tips-page", body });
}

function isEnded({ state }: Tip): boolean {
  return state === "succeeded" || state === "declined" || state === "failed";
}

function stateOf({ state, reason }: Tip, name: string): HtmlValue {
  switch (state) {
    case "requested":
      return html`<b>On its way.</b> Your payment is about to begin. You can leave this page.`;
    case "charging":
      return html`<b>Being paid.</b> We are waiting for the payment provider. You can leave this page.`;
    case "succeeded":
      return html`<b>Paid.</b> ${name} has been told. Thank you!`;
    case "declined":
      return html`<b>Declined.</b> ${reasons[reason ?? ""] ?? "The payment provider declined your payment."} You have not been charged.`;
    case "failed":
      return html`<b>Failed.</b> The payment could not be made. You have not been charged.`;
  }
}

const reasons: Readonly<Record<string, string>> = {
  insufficient_funds: "There is not enough money in the account.",
  expired_card: "The card has expired.",
  authentication_required: "The bank wants you to confirm the payment, which is not possible here.",
};

const labels: Readonly<Record<Tip["state"], string>> = {
  requested: "On its way",
  charging: "Being paid",
  succeeded: "Paid",
  declined: "Declined",
  failed: "Failed",
};

export interface TipsContent {
  readonly given: readonly Tip[];
  readonly received: readonly ReceivedTip[];
  readonly balances: readonly Balance[];
}

/** The viewer's balance and their tips in both directions. */
export function tipsPage(visit: SignedInVisit, { given, received, balances }: TipsContent): SafeHtml {
  const total =
    balances.length === 0
      ? html`<p class="balance">${money(0, formCurrency)}</p>`
      : balances.map(({ amount, currency }) => html`<p class="balance">${money(amount, currency)}</p>`);
  const body = html`${style(visit)}<div class="container page narrow"><h1>Tips</h1>
<div data-region="tips" data-live-tip=""><section class="balances" aria-label="Balance"><h2>Your balance</h2>${total}<p class="muted">What others gave you, less our share.</p></section>
<section aria-label="Received"><h2>Received</h2>${
    received.length === 0
      ? html`<p class="muted">Nothing yet. People can tip you on your profile and on your articles.</p>`
      : html`<ul class="tip-list">${received.map((tip) => receivedRow(tip))}</ul>`
  }</section>
<section aria-label="Given"><h2>Given</h2>${
    given.length === 0
      ? html`<p class="muted">You have not tipped anybody yet.</p>`
      : html`<ul class="tip-list">${given.map((tip) => givenRow(tip))}</ul>`
  }</section></div></div><script src="${visit.asset("tips.js")}" defer></script>`;
  return layout(visit, { title: "Tips", className: "tips-page", body });
}

function receivedRow({ from, amount, fee, currency, message, createdAt }: ReceivedTip): SafeHtml {
  const name =
    from === null ? "Somebody who left" : html`<a href="${address.profile(from.username)}">${from.username}</a>`;
  const share = fee > 0 && html`<small>of ${money(amount, currency)}</small>`;
  return html`<li>${from !== null && avatar(from, 32)}<div class="tip-what">${name}${message !== "" && html`<q>${message}</q>`}<span class="muted">${time(createdAt)}</span></div><div class="tip-amount">${money(amount - fee, currency)}${share}</div></li>`;
}

function givenRow(tip: Tip): SafeHtml {
  const { id, to, amount, currency, message, createdAt, state } = tip;
  return html`<li>${to !== null && avatar(to, 32)}<div class="tip-what"><a href="${address.tip(id)}">${to?.username ?? "Somebody who left"}</a>${message !== "" && html`<q>${message}</q>`}<span class="muted">${time(createdAt)}</span></div><div class="tip-amount">${money(amount, currency)}<small class="is-${state}">${labels[state]}</small></div></li>`;
}
