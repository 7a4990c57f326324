// Fetches the page again and puts the new one in place of the old. It makes no HTML of its own.
"use strict";
const everyMs = 2000;
const patienceMs = 10000;
const live = document.getElementById("live");
const fresh = document.getElementById("fresh");
const done = document.getElementById("done");
let isOut = false;

async function refresh() {
  if (isOut) return;
  isOut = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(patienceMs) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = page.getElementById("live");
    if (!main) {
      fresh.textContent = `The node answers ${answer.status}: this is what it said last.`;
      return;
    }
    // Whoever reads with the keyboard stays where they are.
    const focused = document.activeElement;
    const keep = live.contains(focused) && (focused.getAttribute("href") || focused.dataset.post);
    live.replaceChildren(...main.childNodes);
    if (keep) {
      const same = [...live.querySelectorAll("a, button")]
        .find((element) => (element.getAttribute("href") || element.dataset.post) === keep);
      if (same) same.focus({ preventScroll: true });
    }
    fresh.textContent = "";
  } catch {
    fresh.textContent = "The node does not answer: this is what it said last.";
  } finally {
    isOut = false;
  }
}

live.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button || !confirm(button.dataset.question)) return;
  button.disabled = true;
  done.textContent = "Asked.";
  try {
    const answer = await fetch(button.dataset.post, {
      method: "POST", headers: { "content-type": "application/json" }, body: "{}",
    });
    const said = await answer.json();
    done.textContent = answer.ok ? `Done: ${said.count} messages.` : said.text;
  } catch {
    done.textContent = "The node does not answer: it may have been done all the same.";
  }
  await refresh();
});

setInterval(() => { if (!document.hidden) refresh(); }, everyMs);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
