// One live connection a page, while the page is visible: browsers allow a site six connections over all its tabs.
//
// For other scripts, events on `document`:
//   live:open            the connection is there (detail.isFirst) or there again: what was only hinted at meanwhile is lost, so
//                        fetch again what you show
//   live:notification    detail: as in GET /api/notifications; none is lost, none comes twice
//   live:read            detail: { upTo }: the user has read their notifications up to that id, perhaps elsewhere
//   live:upload          detail: { id, state, progress, ... }
//   live:tip             detail: { id, state, ... }
//   live:comment         detail: { id }: somebody commented on the article of this page
// A page names the articles it listens to by <body data-live-topics="article:SLUG">, slugs percent-encoded, by spaces.

const names = ["notification", "read", "upload", "tip", "comment"];
const { liveTopics = "" } = document.body.dataset;
const bell = document.querySelector("[data-newest]");
const retryMsMax = 60_000;
const hiddenMs = 5_000;

let source;
let timer;
let isFirst = true;
let failures = 0;
// Where the notifications of this page end; the server tells what came after.
let position = bell?.dataset.newest ?? "";

function connect() {
  clearTimeout(timer);
  if (source || document.hidden) return;
  const query = new URLSearchParams(position === "" ? {} : { lastEventId: position });
  for (const topic of liveTopics.split(" ").filter(Boolean)) query.append("topic", decodeURIComponent(topic));
  source = new EventSource(`/api/live?${query}`);
  source.addEventListener("open", () => {
    failures = 0;
    tell("open", { isFirst });
    isFirst = false;
  });
  for (const name of names) {
    source.addEventListener(name, ({ data, lastEventId }) => {
      if (lastEventId) position = lastEventId;
      tell(name, JSON.parse(data));
    });
  }
  source.addEventListener("reset", ({ lastEventId }) => {
    if (lastEventId) position = lastEventId;
    refreshBell();
    tell("open", { isFirst: false });
  });
  source.addEventListener("end", ({ data }) => {
    // Replaced by another page of this user, or signed out: the next look at this page tries again.
    if (["replaced", "revoked"].includes(JSON.parse(data).reason)) disconnect();
  });
  source.addEventListener("error", () => {
    // The browser itself comes back after a lost connection, but not after an error answer.
    if (source?.readyState !== EventSource.CLOSED) return;
    disconnect();
    failures += 1;
    timer = setTimeout(connect, Math.min(retryMsMax, 2_000 * 2 ** failures) * (0.5 + Math.random() / 2));
  });
}

function disconnect() {
  clearTimeout(timer);
  source?.close();
  source = undefined;
}

function tell(name, detail) {
  document.dispatchEvent(new CustomEvent(`live:${name}`, { detail }));
}

// A short look at another tab costs no new connection.
let leaving;
document.addEventListener("visibilitychange", () => {
  clearTimeout(leaving);
  if (document.hidden) leaving = setTimeout(disconnect, hiddenMs);
  else connect();
});
addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);

// The bell: numbers have no gaps, so what is unread is the newest less the last that was read.

function showBell(newest, read) {
  if (!bell) return;
  bell.dataset.newest = Math.max(newest, bell.dataset.newest);
  bell.dataset.read = Math.max(read, bell.dataset.read);
  const unread = bell.dataset.newest - bell.dataset.read;
  const badge = bell.querySelector(".badge");
  badge.hidden = unread <= 0;
  badge.querySelector("b").textContent = unread > 99 ? "99+" : unread;
}

async function refreshBell() {
  const answer = await fetch("/api/notifications?limit=1").catch(() => undefined);
  if (!answer?.ok) return;
  const { newest, readUpTo } = await answer.json();
  showBell(newest, readUpTo);
}

document.addEventListener("live:notification", ({ detail }) => {
  showBell(detail.id, 0);
  say(detail.text);
});
document.addEventListener("live:read", ({ detail }) => showBell(0, detail.upTo));

// The element is a polite live region; app.js writes to it too.
function say(text) {
  const status = document.querySelector("#status");
  status.textContent = "";
  requestAnimationFrame(() => {
    status.textContent = text;
  });
}

// Parts of this page that show what has happened, fetched again when more has. One fetch at a time; what comes during it
// leads to one more. The short wait spreads the fetches of all who have a much-read article open.

function refresher(update) {
  let isWanted = false;
  let isRunning = false;
  return async function refresh() {
    isWanted = true;
    if (isRunning) return;
    isRunning = true;
    while (isWanted) {
      await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 400));
      isWanted = false;
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        if (answer.ok) update(new DOMParser().parseFromString(await answer.text(), "text/html"));
      } catch {
        // Offline: the connection comes back, and with it `live:open`.
      }
    }
    isRunning = false;
  };
}

const list = document.querySelector('[data-region="notifications"]');
if (list) {
  const refresh = refresher((page) => {
    const fresh = page.querySelector('[data-region="notifications"]');
    if (fresh) list.replaceChildren(...fresh.childNodes);
    const { newest = 0, read = 0 } = page.querySelector("[data-newest]")?.dataset ?? {};
    showBell(Number(newest), Number(read));
  });
  document.addEventListener("live:notification", refresh);
  document.addEventListener("live:open", ({ detail }) => detail.isFirst || refresh());
}

if (document.querySelector('[data-region="comments"]')) {
  // New cards are put in one by one, so that a comment being written stays as it is. app.js may replace the region.
  const refresh = refresher((page) => {
    const region = document.querySelector('[data-region="comments"]');
    const cards = [...page.querySelectorAll('[data-region="comments"] .card[id]')];
    let isNew = false;
    for (const [index, card] of cards.entries()) {
      if (document.getElementById(card.id)) continue;
      const next = cards.slice(index + 1).find(({ id }) => document.getElementById(id));
      if (next) document.getElementById(next.id).before(document.adoptNode(card));
      else region.append(document.adoptNode(card));
      isNew = true;
    }
    if (!isNew) return;
    region.querySelector(".no-comments")?.remove();
    const title = page.querySelector("#comments-title");
    if (title) region.querySelector("#comments-title").textContent = title.textContent;
    say("There is a new comment.");
  });
  document.addEventListener("live:comment", refresh);
  document.addEventListener("live:open", ({ detail }) => detail.isFirst || refresh());
}

connect();
