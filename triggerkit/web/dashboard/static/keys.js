// Keys: / for the filter or the search, j and k for the next and the row before, Enter opens it, ? helps.

const HELP = [
  ["/", "filter this list, or search"], ["w", "ask why a row has no effect"], ["j k", "next row, row before"],
  ["Enter", "open the row"], ["g then o r t e c m v", "overview, runs, trace, errors, consumers, messages, events"],
  ["?", "this help"], ["Esc", "close, or leave the box"],
];
const PAGES = { o: "", r: "runs", t: "trace", e: "errors", c: "consumers", m: "messages", v: "events" };
let goes = false;

function rows() {
  return [...document.querySelectorAll("main tbody tr:not(.note)")].filter((row) => row.querySelector("a[href]"));
}

function move(step) {
  const all = rows();
  if (!all.length) return;
  const at = all.indexOf(document.activeElement?.closest("tr"));
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
  next.querySelector("a[href]").focus();
}

function help() {
  let dialog = document.getElementById("help");
  if (!dialog) {
    dialog = document.createElement("dialog");
    dialog.id = "help";
    dialog.setAttribute("aria-label", "Keys");
    const list = document.createElement("dl");
    for (const [key, text] of HELP) {
      const term = document.createElement("dt");
      term.textContent = key;
      const meaning = document.createElement("dd");
      meaning.textContent = text;
      list.append(term, meaning);
    }
    const close = document.createElement("button");
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    dialog.append(list, close);
    document.body.append(dialog);
  }
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

function box() {
  const found = document.getElementById("filter") ?? document.getElementById("q");
  found?.focus();
  found?.select();
}

function pressed(key) {
  if (goes) {
    goes = false;
    const home = document.querySelector("nav .brand");
    if (key in PAGES && home) location.assign(new URL(PAGES[key], home.href));
    return true;
  }
  if (key === "/") box();
  else if (key === "w") document.getElementById("q")?.focus();
  else if (key === "j") move(1);
  else if (key === "k") move(-1);
  else if (key === "g") goes = true;
  else if (key === "?") help();
  else return false;
  return true;
}

export function keys() {
  document.getElementById("help-button")?.addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    const inBox = event.target.closest?.("input, textarea, select");
    if (event.key === "Escape" && inBox) inBox.blur();
    if (inBox || event.ctrlKey || event.metaKey || event.altKey) return;
    if (pressed(event.key)) event.preventDefault();
  });
}
