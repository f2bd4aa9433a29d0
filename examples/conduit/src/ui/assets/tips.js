// Keeps tips up to date. [data-live-tip="ID"]: shows that tip; [data-live-tip=""]: shows all of the viewer's.
// What changes is told by `live:tip` (see live.js); while [data-pending] is there the page also asks by itself now and then,
// since a message may get lost.

{
  const shown = () => document.querySelector("[data-live-tip]");
  const askEveryMs = 4_000;
  let asksLeft = 150;
  let isWanted = false;
  let isRunning = false;

  const refresh = async () => {
    isWanted = true;
    if (isRunning) return;
    isRunning = true;
    while (isWanted) {
      isWanted = false;
      try {
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.querySelector("[data-live-tip]");
        if (answer.ok && fresh && fresh.innerHTML !== shown().innerHTML) show(fresh);
      } catch {
        // Offline: the next message or the next look brings it.
      }
    }
    isRunning = false;
  };

  const show = (fresh) => {
    const old = shown();
    old.replaceChildren(...fresh.childNodes);
    old.toggleAttribute("data-pending", fresh.hasAttribute("data-pending"));
  };

  document.addEventListener("live:tip", ({ detail }) => {
    if (["", detail.id].includes(shown().dataset.liveTip)) refresh();
  });
  // From the first connection on: the tip may have moved on since the page was made.
  document.addEventListener("live:open", refresh);

  const timer = setInterval(() => {
    if (!shown().hasAttribute("data-pending") || --asksLeft < 0) return clearInterval(timer);
    if (!document.hidden) refresh();
  }, askEveryMs);
}
