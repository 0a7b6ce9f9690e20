// The checks of a database take longer than a page may: they are asked for once it is there.

export async function checks() {
  const place = document.querySelector("[data-checks]");
  const link = place?.querySelector("a");
  if (!link) return;
  delete place.dataset.checks;
  place.setAttribute("aria-busy", "true");
  try {
    const answer = await fetch(link.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(20000) });
    if (!answer.ok || answer.redirected) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const found = page.getElementById("checks");
    if (found) place.replaceChildren(...document.adoptNode(found).childNodes);
  } catch {
    // The link leads to the checks.
  } finally {
    place.removeAttribute("aria-busy");
  }
}
