// Fetches the page again and puts the new one in place of the old. It makes no HTML of its own.
"use strict";
const everyMs = 2000;
const live = document.getElementById("live");
const fresh = document.getElementById("fresh");
let asked = 0;

async function refresh() {
  const turn = ++asked;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const main = page.getElementById("live");
    if (turn !== asked || !main) return;
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
    if (turn === asked) fresh.textContent = "– the node does not answer: this is what it said last";
  }
}

live.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button || !confirm(button.dataset.question)) return;
  button.disabled = true;
  let text;
  try {
    const answer = await fetch(button.dataset.post, {
      method: "POST", headers: { "content-type": "application/json" }, body: "{}",
    });
    const said = await answer.json();
    text = answer.ok ? `Done: ${said.count} messages.` : said.text;
  } catch {
    text = "The node does not answer: it may have been done all the same.";
  }
  await refresh();
  fresh.textContent = `– ${text}`;
});

setInterval(() => { if (!document.hidden) refresh(); }, everyMs);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
