// Spares reloads; every page works without it.
// form[data-live="R"]: sent by fetch; its answer's parts with data-region="R" replace those here.
// form[data-undo="T"]: sent after a few seconds in which "T" can be undone.

const undoMs = 5000;
const status = document.querySelector("#status");
const focusable = "a[href], button, textarea, input:not([type=hidden])";

function announce(text) {
  status.textContent = "";
  if (text) requestAnimationFrame(() => (status.textContent = text));
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  const { submitter } = event;
  const region = submitter?.dataset.live ?? form.dataset.live;
  if (form.dataset.undo !== undefined) {
    event.preventDefault();
    offerUndo(form, region);
  } else if (region !== undefined) {
    event.preventDefault();
    send(form, region, submitter);
  }
});

async function send(form, region, submitter) {
  if (form.getAttribute("aria-busy") === "true") return;
  form.setAttribute("aria-busy", "true");
  const done = submitter?.dataset.done ?? form.dataset.done;
  try {
    const body = new URLSearchParams(new FormData(form, submitter));
    const answer = await fetch(form.action, { method: "POST", body });
    if (answer.status >= 500) throw new Error(answer.statusText);
    if (new URL(answer.url).pathname === "/login") return location.assign(answer.url);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!replace(region, page)) return location.assign(answer.ok ? answer.url : location.href);
    announce(answer.ok ? done : "");
  } catch {
    toast("That did not work. Please try again.");
  } finally {
    form.removeAttribute("aria-busy");
  }
}

// Replaces every part of the region by its counterpart; false when there is none. The focus stays where it was.
function replace(region, page) {
  const parts = (root) => [...root.querySelectorAll(`[data-region="${CSS.escape(region)}"]`)];
  const fresh = parts(page);
  const old = parts(document);
  if (fresh.length !== old.length || old.length === 0) return false;
  for (const [index, part] of old.entries()) {
    const next = document.adoptNode(fresh[index]);
    const at = [...part.querySelectorAll(focusable)].indexOf(document.activeElement);
    const hadFocus = part.contains(document.activeElement);
    part.replaceWith(next);
    const target = next.querySelector("[autofocus]") ?? (at >= 0 ? next.querySelectorAll(focusable)[at] : undefined);
    if (target) target.focus({ preventScroll: !target.autofocus });
    else if (hadFocus || document.activeElement === document.body) {
      next.querySelector("[tabindex]")?.focus({ preventScroll: true });
    }
  }
  return true;
}

let pending;

function offerUndo(form, region) {
  pending?.finish();
  const part = form.closest("[data-removable]");
  const button = form.querySelector("button");
  const show = (isShown) => {
    if (part) part.hidden = !isShown;
    button.disabled = !isShown;
  };
  const finish = (isLeaving) => {
    settle();
    if (isLeaving)
      fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)), keepalive: true });
    else if (region === undefined) form.submit();
    else send(form, region);
  };
  const undo = () => {
    settle();
    show(true);
    button.focus();
  };
  const timer = setTimeout(() => finish(), undoMs);
  const bar = toast(`${form.dataset.undo} …`, undo);
  const settle = () => {
    clearTimeout(timer);
    pending = undefined;
    bar.remove();
  };
  pending = { finish };
  show(false);
  bar.querySelector("button").focus();
}

addEventListener("pagehide", () => pending?.finish(true));

function toast(text, undo) {
  document.querySelector(".toast")?.remove();
  const bar = document.createElement("div");
  bar.className = "toast";
  bar.setAttribute("role", "alert");
  bar.append(text);
  if (undo) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-sm";
    button.textContent = "Undo";
    button.addEventListener("click", undo);
    bar.append(button);
  } else setTimeout(() => bar.remove(), undoMs);
  document.body.append(bar);
  return bar;
}

const isBroken = (image) => image.matches?.(".user-img") && image.classList.add("is-broken");
document.addEventListener("error", ({ target }) => isBroken(target), true);
for (const image of document.images) if (image.complete && !image.naturalWidth) isBroken(image);

for (const field of document.querySelectorAll("[data-tags]")) {
  const input = field.querySelector("input[name=tags]");
  const list = field.querySelector(".tag-list");
  const tags = () => [...list.querySelectorAll("input")].map(({ value }) => value);

  const pill = (tag) => {
    const item = document.createElement("li");
    item.className = "tag-default tag-pill";
    const value = document.createElement("input");
    Object.assign(value, { type: "hidden", name: "tagList", value: tag });
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Remove tag ${tag}`);
    button.append(document.createElement("i"));
    button.firstChild.className = "ion-close-round";
    button.addEventListener("click", () => {
      item.remove();
      input.focus();
      announce(`Tag ${tag} removed.`);
    });
    item.append(value, tag, button);
    return item;
  };
  const add = () => {
    for (const tag of input.value.split(",").map((text) => text.trim())) {
      if (tag === "" || tags().includes(tag)) continue;
      list.append(pill(tag));
      announce(`Tag ${tag} added.`);
    }
    input.value = "";
  };

  list.replaceChildren(...tags().map(pill));
  field.querySelector(".hint").textContent = "Press Enter after each. Up to 20.";
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" || event.key === ",") {
      event.preventDefault();
      add();
    } else if (event.key === "Backspace" && input.value === "") list.lastElementChild?.remove();
  });
}
