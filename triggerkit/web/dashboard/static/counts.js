// The exact count of a list whose count ends at a bound: asked for while the page is looked at, and
// again once it is a minute old.

const KEPT_MS = 60000;

const known = new Map();

async function ask(url) {
  const before = known.get(url);
  known.set(url, { text: before?.text ?? null, at: Date.now() });
  try {
    const answer = await fetch(url, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(20000) });
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    known.set(url, { text: page.getElementById("counted")?.textContent ?? null, at: Date.now() });
    counts();
  } catch {
    // The bound stays; the link leads to the count.
  }
}

export function counts() {
  const link = document.querySelector("a[data-count]");
  if (!link || document.hidden) return;
  const found = known.get(link.href);
  if (found?.text) link.textContent = found.text;
  if (!found || Date.now() - found.at > KEPT_MS) ask(link.href);
}
