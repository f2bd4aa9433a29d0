/** The viewer's uploads, and the form that sends one. */

import type { Upload, UploadPurpose } from "../../domain/model.ts";
import type { ProblemErrors } from "../../domain/problem.ts";
import { address } from "../address.ts";
import { attributes, type HtmlValue, html, type SafeHtml } from "../html.ts";
import type { SignedInVisit } from "../visit.ts";
import { layout } from "./layout.ts";
import { actionForm, errorList, hidden, time } from "./parts.ts";

/** Uploads on a page. */
export const uploadsPerPage = 20;

const purposeNames: Readonly<Record<UploadPurpose, string>> = {
  avatar: "Profile picture",
  image: "Picture",
  video: "Video",
};
const kinds: Readonly<Record<UploadPurpose, string>> = { avatar: "image/*", image: "image/*", video: "video/*" };

/** A form that sends one file. Its token stands before the file: it is judged first. The purpose is a button's. */
export function uploadForm(
  visit: SignedInVisit,
  {
    purposes,
    label,
    next,
    mayBePrivate = false,
  }: {
    readonly purposes: readonly UploadPurpose[];
    readonly label: string;
    readonly next: string;
    readonly mayBePrivate?: boolean;
  },
): SafeHtml {
  const id = `file-${purposes.join("-")}`;
  const actionOf = (purpose: UploadPurpose) =>
    `${address.uploads()}?purpose=${purpose}&next=${encodeURIComponent(next)}`;
  const buttons = purposes.map(
    (purpose) =>
      html`<button class="btn btn-outline-secondary" type="submit" formaction="${actionOf(purpose)}"${attributes({ "data-purpose": purpose })}>Upload ${purposeNames[purpose].toLowerCase()}</button>`,
  );
  const accept = [...new Set(purposes.map((purpose) => kinds[purpose]))].join(",");
  return html`<form class="upload-form" method="post" enctype="multipart/form-data" action="${actionOf(purposes[0] ?? "image")}" data-upload>${hidden(visit)}${
    mayBePrivate &&
    html`<div class="form-group"><label><input type="checkbox" name="visibility" value="private"> Only I can see it</label></div>`
  }<div class="form-group"><label for="${id}">${label}</label><input class="form-control" id="${id}" type="file" name="file" required accept="${accept}"></div><div class="form-actions">${buttons}</div><div data-progress hidden><progress max="100" value="0" aria-label="${label}"></progress> <span data-progress-text></span></div></form>`;
}

/** The page of all uploads, newest first. */
export function uploadsPage(
  visit: SignedInVisit,
  {
    uploads,
    errors,
    isNewest,
  }: { readonly uploads: readonly Upload[]; readonly errors?: ProblemErrors | undefined; readonly isNewest: boolean },
): SafeHtml {
  const last = uploads.at(-1);
  const older = uploads.length === uploadsPerPage && last !== undefined;
  const body = html`<div class="container page column"><h1>Your uploads</h1>${errorList(errors)}
${isNewest && uploadForm(visit, { purposes: ["image", "video"], label: "A picture or a video", next: address.uploads(), mayBePrivate: true })}
<ul class="upload-list" data-region="uploads" aria-label="Uploads">${uploads.map((upload) => uploadItem(visit, upload))}</ul>
${uploads.length === 0 && html`<p class="muted" data-no-uploads>Nothing here yet.</p>`}${older && html`<p><a href="${address.uploads(last.id)}">Older uploads</a></p>`}</div>`;
  return layout(visit, { title: "Your uploads", className: "uploads-page", body, hasUploads: true });
}

function uploadItem(visit: SignedInVisit, upload: Upload): SafeHtml {
  const { id, name, purpose, markdown, createdAt } = upload;
  const what = name === "" ? purposeNames[purpose] : name;
  return html`<li class="card upload" id="upload-${id}"${attributes({ "data-upload-id": id, "data-state": upload.state })}><div class="card-block">${shown(upload, what)}<p class="upload-name">${what}</p>${stateOf(upload)}${
    markdown !== null &&
    upload.state !== "failed" &&
    html`<div class="form-group"><label for="markdown-${id}">To show it in an article, write</label><input class="form-control markdown" id="markdown-${id}" value="${markdown}" readonly></div>`
  }</div><div class="card-footer"><span class="muted">${purposeNames[purpose]}${upload.isPrivate && ", only for you"}</span>${time(createdAt)}<span class="mod-options">${actionForm(
    visit,
    {
      action: `${address.uploads()}/${id}/delete`,
      next: visit.here,
      className: "btn btn-sm btn-icon",
      live: "uploads",
      undo: "Upload deleted",
      done: "Upload deleted.",
      name: `Delete ${what}`,
      label: html`<i class="ion-trash-a" aria-hidden="true"></i>`,
    },
  )}</span></div></li>`;
}

function shown({ purpose, media, poster, renditions }: Upload, what: string): SafeHtml | undefined {
  if (media === null) return undefined;
  const { widthPx = 0, heightPx = 0 } = renditions.find(({ url }) => url === media) ?? {};
  const size = attributes({ width: widthPx, height: heightPx });
  return purpose === "video"
    ? html`<video class="upload-media" controls playsinline preload="metadata" poster="${poster}" src="${media}" aria-label="${what}"${size}></video>`
    : html`<img class="upload-media" src="${media}" alt="" loading="lazy" decoding="async"${size}>`;
}

function stateOf({ state, progress, message }: Upload): SafeHtml {
  const text: Readonly<Record<Upload["state"], HtmlValue>> = {
    received: "Waiting for its turn …",
    processing: html`<progress max="100" value="${progress}" aria-label="Processing"></progress> <span data-percent>${progress} %</span>`,
    waiting: html`Kept, but it cannot be processed yet: ${message}`,
    ready: "Ready",
    failed: html`The file ${message ?? "could not be processed"}.`,
  };
  return html`<p class="upload-state ${state === "failed" && "is-failed"}">${text[state]}</p>`;
}
