/** The pages that are forms: sign in, sign up, settings, editor. What was refused comes back as it was typed. */
import type { ProblemErrors } from "../../domain/problem.ts";
import { address } from "../address.ts";
import { attributes, html, type SafeHtml } from "../html.ts";
import { renderMarkdown } from "../markdown.ts";
import type { SignedInVisit, Visit } from "../visit.ts";
import { layout } from "./layout.ts";
import { avatar, errorList, hidden } from "./parts.ts";
import { uploadForm } from "./uploads.ts";

/** A form as it was sent, and what was wrong with it. */
export interface FormState<Values> {
  readonly values: Values;
  readonly errors?: ProblemErrors | undefined;
}

interface Field {
  readonly name: string;
  readonly label: string;
  readonly value?: string | undefined;
  readonly type?: "text" | "email" | "password" | "url";
  readonly placeholder?: string;
  readonly autocomplete?: string;
  readonly hint?: string;
  readonly maxlength?: number;
  readonly minlength?: number;
  readonly required?: boolean;
  /** Lines of a text area; without it the field is one line. */
  readonly rows?: number;
  readonly className?: string;
}

function field(state: { readonly errors?: ProblemErrors | undefined }, options: Field): SafeHtml {
  const { name, label, value, type = "text", hint, rows, className = "", placeholder = label } = options;
  const common = attributes({
    placeholder,
    autocomplete: options.autocomplete,
    maxlength: options.maxlength,
    minlength: options.minlength,
    required: options.required,
    "aria-invalid": state.errors?.[name] !== undefined && "true",
    "aria-describedby": hint !== undefined && `hint-${name}`,
  });
  // A text area drops the first line break after its tag, so that one is given for it to drop.
  const input =
    rows === undefined
      ? html`<input class="form-control" id="field-${name}" name="${name}" type="${type}" value="${value}"${common}>`
      : html`<textarea class="form-control ${className}" id="field-${name}" name="${name}" rows="${rows}"${common}>
${value}</textarea>`;
  return html`<div class="form-group"><label for="field-${name}">${label}</label>${input}${hint !== undefined && html`<small class="hint" id="hint-${name}">${hint}</small>`}</div>`;
}

/** What the people's forms hold; a password is never sent back. */
export interface AccountValues {
  readonly username: string;
  readonly email: string;
}

const emailField = {
  name: "email",
  label: "Email",
  type: "email",
  autocomplete: "email",
  maxlength: 254,
  required: true,
} as const;
const usernameField = {
  name: "username",
  label: "Username",
  autocomplete: "username",
  maxlength: 50,
  required: true,
} as const;

export function loginPage(visit: Visit, next: string, state: FormState<{ readonly email: string }>): SafeHtml {
  return smallForm(visit, {
    title: "Sign in",
    switchTo: html`<a href="${address.register(next)}">Need an account?</a>`,
    form: html`<form method="post" action="/login">${hidden(visit, next)}${field(state, { ...emailField, value: state.values.email })}${field(
      state,
      {
        name: "password",
        label: "Password",
        type: "password",
        autocomplete: "current-password",
        maxlength: 128,
        required: true,
      },
    )}<button class="btn btn-lg btn-primary" type="submit">Sign in</button></form>`,
    errors: errorList(state.errors, ["email", "password"]),
  });
}

export function registerPage(visit: Visit, next: string, state: FormState<AccountValues>): SafeHtml {
  return smallForm(visit, {
    title: "Sign up",
    switchTo: html`<a href="${address.login(next)}">Have an account?</a>`,
    form: html`<form method="post" action="/register">${hidden(visit, next)}${field(state, { ...usernameField, value: state.values.username })}${field(
      state,
      { ...emailField, value: state.values.email },
    )}${field(state, { name: "password", label: "Password", type: "password", autocomplete: "new-password", minlength: 6, maxlength: 128, required: true, hint: "At least 6 characters." })}<button class="btn btn-lg btn-primary" type="submit">Sign up</button></form>`,
    errors: errorList(state.errors, ["username", "email", "password"]),
  });
}

interface SmallForm {
  readonly title: string;
  readonly switchTo: SafeHtml;
  readonly form: SafeHtml;
  readonly errors: SafeHtml | undefined;
}

function smallForm(visit: Visit, { title, switchTo, form, errors }: SmallForm): SafeHtml {
  const body = html`<div class="container page form-page"><h1>${title}</h1><p class="switch">${switchTo}</p>${errors}${form}</div>`;
  return layout(visit, { title, className: "auth-page", body });
}

export interface SettingsValues extends AccountValues {
  readonly image: string;
  readonly bio: string;
}

export function settingsPage(visit: SignedInVisit, state: FormState<SettingsValues>): SafeHtml {
  const { image, username, bio, email } = state.values;
  const body = html`<div class="container page form-page"><h1>Your Settings</h1>${errorList(state.errors, ["image", "username", "bio", "email", "password"])}
<form method="post" action="/settings">${hidden(visit)}${field(state, { name: "image", label: "Profile picture", placeholder: "URL of profile picture", value: image, type: image.startsWith("/") ? "text" : "url", autocomplete: "photo", maxlength: 2_000, hint: "What you uploaded, or an https address. Without one, we draw you a picture." })}${field(
    state,
    { ...usernameField, value: username },
  )}${field(state, { name: "bio", label: "Short bio", placeholder: "Short bio about you", value: bio, rows: 5, maxlength: 2_000 })}${field(state, { ...emailField, value: email })}${field(
    state,
    {
      name: "password",
      label: "New password",
      placeholder: "New Password",
      type: "password",
      autocomplete: "new-password",
      minlength: 6,
      maxlength: 128,
      hint: "Leave it empty to keep the one you have.",
    },
  )}<button class="btn btn-lg btn-primary" type="submit">Update Settings</button></form>
<hr><section class="avatar-upload" aria-label="Profile picture">${avatar(visit.viewer, 96)}${uploadForm(visit, { purposes: ["avatar"], label: "Upload a picture", next: "/settings" })}</section>
<hr><form method="post" action="/logout">${hidden(visit)}<button class="btn btn-outline-danger" type="submit">Or click here to logout.</button></form></div>`;
  return layout(visit, { title: "Settings", className: "settings-page", body, hasUploads: true });
}

export interface EditorValues {
  readonly title: string;
  readonly description: string;
  readonly body: string;
  readonly tagList: readonly string[];
}

/** The editor of a new article, or of the one under `slug`. With `isPreview`, the body as it will look stands above it. */
export function editorPage(
  visit: SignedInVisit,
  {
    slug,
    isPreview,
    ...state
  }: FormState<EditorValues> & { readonly slug?: string | undefined; readonly isPreview?: boolean },
): SafeHtml {
  const { title, description, body: text, tagList } = state.values;
  const heading = slug === undefined ? "New article" : "Edit article";
  const tags = tagList.map(
    (tag) =>
      html`<li class="tag-default tag-pill"><label><input type="checkbox" name="tagList" value="${tag}" checked>${tag}</label></li>`,
  );
  const body = html`<div class="container page form-page editor-form"><h1>${heading}</h1>${errorList(state.errors, ["title", "description", "body", "tagList"])}
<form method="post" action="${address.editor(slug)}">${hidden(visit)}${field(state, { name: "title", label: "Title", placeholder: "Article Title", value: title, maxlength: 200, required: true, autocomplete: "off" })}${field(
    state,
    {
      name: "description",
      label: "Summary",
      placeholder: "What's this article about?",
      value: description,
      maxlength: 500,
      required: true,
      autocomplete: "off",
    },
  )}${field(state, { name: "body", label: "Text", placeholder: "Write your article (in markdown)", value: text, rows: 14, maxlength: 65_536, required: true, className: "markdown" })}
<div class="form-group" data-insert><span data-insert-fields hidden><label class="btn btn-sm btn-outline-secondary">Add a picture<input class="visually-hidden" type="file" accept="image/*" data-purpose="image"></label> <label class="btn btn-sm btn-outline-secondary">Add a video<input class="visually-hidden" type="file" accept="video/*" data-purpose="video"></label></span><span class="hint"><a href="${address.uploads()}" target="_blank" rel="noopener">Your uploads</a>: pictures and videos, and what to write to show them.</span><div data-progress hidden><progress max="100" value="0" aria-label="Upload"></progress> <span data-progress-text></span></div></div>
<div class="form-group" data-tags><label for="field-tagList">Tags</label><input class="form-control" id="field-tagList" name="tags" placeholder="Enter tags" autocomplete="off" maxlength="1000" aria-describedby="hint-tags"><small class="hint" id="hint-tags">Separate them with commas. Up to 20.</small><ul class="tag-list" aria-label="Tags of this article">${tags}</ul></div>
<div class="form-actions"><button class="btn btn-lg btn-primary" type="submit">Publish Article</button><button class="btn btn-lg btn-outline-secondary" type="submit" name="intent" value="preview" formnovalidate data-live="preview" data-done="Preview updated.">Preview</button></div>
<div data-region="preview">${isPreview && html`<section class="preview" aria-label="Preview"><h2>${title === "" ? "Untitled" : title}</h2><div class="prose">${renderMarkdown(text)}</div></section>`}</div></form></div>`;
  return layout(visit, { title: heading, className: "editor-page", body, hasUploads: true });
}
