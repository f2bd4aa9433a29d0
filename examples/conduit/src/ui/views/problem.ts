/** The page that says what went wrong. */
import type { ErrorAnswer } from "rungs/web";
import { html, type SafeHtml } from "../html.ts";
import type { Visit } from "../visit.ts";
import { layout } from "./layout.ts";

const headings: Readonly<Record<number, string>> = {
  403: "That is not allowed",
  404: "There is nothing here",
  413: "That is too much",
  429: "Please wait a little",
  503: "We will be right back",
};

/** `reference` is the request's id, shown when the fault is ours so that people can name it. */
export function problemPage(visit: Visit, answer: ErrorAnswer, reference: string): SafeHtml {
  const { status, errors, isFault } = answer;
  const heading = headings[status] ?? (isFault ? "Something went wrong" : "That did not work");
  const lines = Object.entries(errors).flatMap(([field, messages]) =>
    messages.map((message) => `${field === "body" ? "" : field} ${message}.`.trim()),
  );
  const reason =
    status === 404
      ? "The page you asked for does not exist, or it has moved."
      : lines.map((line) => line.charAt(0).toUpperCase() + line.slice(1)).join(" ");
  const body = html`<div class="container page problem"><p class="problem-status" aria-hidden="true">${status}</p><h1>${heading}</h1><p>${reason}</p>${isFault && html`<p class="muted">It is our fault, and it has been noted as <code>${reference}</code>.</p>`}
<p><a class="btn btn-primary" href="/">Go to the front page</a></p></div>`;
  return layout(visit, { title: heading, className: "problem-page", body });
}
