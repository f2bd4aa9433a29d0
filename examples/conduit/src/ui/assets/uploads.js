// Sends files with a progress bar and shows live how they are processed; every page works without it, by plain forms.
// form[data-upload]: a form of its own.  [data-insert]: buttons of the editor.  [data-upload-id]: an upload in the list.

const csrf = () => document.querySelector("input[name=_csrf]")?.value ?? "";
const pollMs = 5000;
const followMsMax = 2 * 60 * 60 * 1000;
/** Uploads followed on this page: how to tell each of its state. */
const followed = new Map();

function send(file, { purpose, visibility }, onProgress) {
  return new Promise((resolve, reject) => {
    const body = new FormData();
    // Before the file: it is judged first.
    body.append("visibility", visibility ?? "public");
    body.append("file", file);
    const request = new XMLHttpRequest();
    request.open("POST", `/api/uploads?purpose=${purpose}`);
    request.setRequestHeader("x-csrf-token", csrf());
    request.responseType = "json";
    request.upload.addEventListener("progress", ({ loaded, total }) => onProgress(total ? (100 * loaded) / total : 0));
    request.addEventListener("load", () => {
      if (request.status === 202) return resolve(request.response.upload);
      if (request.status === 401) return location.assign("/login");
      const { errors = {} } = request.response ?? {};
      const [[field, [problem]] = ["file", ["could not be sent"]]] = Object.entries(errors);
      reject(new Error(field === "file" ? `The file ${problem}.` : `That did not work: ${problem}.`));
    });
    request.addEventListener("error", () => reject(new Error("The connection was lost. Please try again.")));
    request.send(body);
  });
}

// Resolves once the upload is ready, failed or has to wait. Live events tell; asking now and then covers for lost ones.
function follow(upload, onChange) {
  return new Promise((resolve) => {
    const until = Date.now() + followMsMax;
    const hear = (next) => {
      onChange(next);
      if (["ready", "failed", "waiting"].includes(next.state) || Date.now() > until) {
        clearInterval(timer);
        followed.delete(upload.id);
        resolve(next);
      }
    };
    const ask = async () => {
      const answer = await fetch(upload.url).catch(() => undefined);
      if (answer?.ok && followed.has(upload.id)) hear((await answer.json()).upload);
    };
    followed.set(upload.id, hear);
    const timer = setInterval(ask, pollMs);
    ask();
  });
}

document.addEventListener("live:upload", ({ detail }) => followed.get(detail.id)?.(detail));

// The bar and the words beside it, which a screen reader hears only when they change in kind.
function shower(box) {
  const bar = box.querySelector("progress");
  const words = box.querySelector("[data-progress-text]");
  let said = "";
  return (text, percent) => {
    box.hidden = false;
    bar.hidden = percent === undefined;
    if (percent !== undefined) bar.value = percent;
    words.textContent = text;
    if (said === text) return;
    said = text;
    document.querySelector("#status").textContent = text;
  };
}

async function sendAndFollow(file, kind, show) {
  show("Sending …", 0);
  const upload = await send(file, kind, (percent) => show("Sending …", percent));
  show("Processing …", 0);
  return { upload, done: () => follow(upload, ({ progress }) => show("Processing …", progress)) };
}

for (const form of document.querySelectorAll("form[data-upload]")) {
  const show = shower(form.querySelector("[data-progress]"));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const [file] = form.querySelector("input[type=file]").files;
    if (!file || form.getAttribute("aria-busy") === "true") return;
    const { purpose } = (event.submitter ?? form.querySelector("[data-purpose]")).dataset;
    form.setAttribute("aria-busy", "true");
    try {
      const visibility = form.querySelector("[name=visibility]:checked")?.value;
      const { done } = await sendAndFollow(file, { purpose, visibility }, show);
      refreshList();
      form.reset();
      form.removeAttribute("aria-busy");
      const { state, media, message } = await done();
      if (state === "waiting") show(`The file is kept. ${message}`);
      else if (state === "failed") show(`The file ${message}.`);
      else {
        show("Done.");
        if (purpose === "avatar") showAvatar(media);
      }
    } catch (error) {
      show(error.message);
    } finally {
      form.removeAttribute("aria-busy");
    }
  });
}

function showAvatar(media) {
  for (const image of document.querySelectorAll(".avatar-upload .user-img, .navbar .user-img")) image.src = media;
  const field = document.querySelector("#field-image");
  if (field) {
    field.type = "text";
    field.value = media;
  }
}

// The editor: what was sent is written where the caret is.
for (const box of document.querySelectorAll("[data-insert]")) {
  const show = shower(box.querySelector("[data-progress]"));
  const text = document.querySelector("#field-body");
  box.querySelector("[data-insert-fields]").hidden = false;
  for (const input of box.querySelectorAll("input[type=file]")) {
    input.addEventListener("change", async () => {
      const [file] = input.files;
      if (!file) return;
      const { purpose } = input.dataset;
      try {
        const { upload, done } = await sendAndFollow(file, { purpose }, show);
        const write = () => {
          const isAtStart = text.selectionStart === 0 || text.value[text.selectionStart - 1] === "\n";
          text.setRangeText(
            `${isAtStart ? "" : "\n\n"}${upload.markdown}\n`,
            text.selectionStart,
            text.selectionEnd,
            "end",
          );
          text.dispatchEvent(new Event("input", { bubbles: true }));
        };
        // A video may take minutes; its place in the text is known before.
        if (purpose === "video") write();
        const { state, message } = await done();
        if (state === "failed") return show(`The file ${message}.`);
        if (purpose !== "video") write();
        show(state === "waiting" ? `The file is kept. ${message}` : "Done.");
      } catch (error) {
        show(error.message);
      } finally {
        input.value = "";
      }
    });
  }
}

// The list: progress is shown at once; another state comes as the server shows it.
const list = () => document.querySelector('[data-region="uploads"]');
let isRefreshing = false;
let isWanted = false;

async function refreshList() {
  isWanted = true;
  if (isRefreshing || !list()) return;
  isRefreshing = true;
  while (isWanted) {
    isWanted = false;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" } });
      if (answer.ok) showList(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } catch {
      // Offline: `live:open` comes when the connection does.
    }
  }
  isRefreshing = false;
}

// Items that did not change stay as they are: a video may be playing in them.
function showList(page) {
  const fresh = page.querySelector('[data-region="uploads"]');
  if (!fresh) return;
  const items = [...fresh.children].map((item) => {
    const old = document.getElementById(item.id);
    return old?.dataset.state === item.dataset.state ? old : document.adoptNode(item);
  });
  const wanted = new Set(items);
  for (const old of [...list().children]) if (!wanted.has(old)) old.remove();
  for (const [index, item] of items.entries())
    if (list().children[index] !== item) list().insertBefore(item, list().children[index] ?? null);
  const none = document.querySelector("[data-no-uploads]");
  if (none) none.hidden = items.length > 0;
}

if (list()) {
  document.addEventListener("live:upload", ({ detail }) => {
    const item = document.getElementById(`upload-${detail.id}`);
    if (item?.dataset.state !== detail.state) return refreshList();
    const bar = item.querySelector("progress");
    if (bar) bar.value = detail.progress;
    const percent = item.querySelector("[data-percent]");
    if (percent) percent.textContent = `${detail.progress} %`;
  });
  document.addEventListener("live:open", ({ detail }) => detail.isFirst || refreshList());
}
