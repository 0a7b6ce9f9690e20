// A page that is looked at loads itself anew as things change, without moving what is read.

const LEAST_MS = 1000;

// What failed is tried again after so long.
const AGAIN_MS = 5000;

const FULL = "Too many pages are open for this one to be live: load it again to see what is new.";

let busy = false;
let again = false;
let last = 0;
let timer = 0;
let isFull = false;
let isOver = false;

function say(text, action) {
  const said = document.getElementById("said");
  said.hidden = !text;
  said.replaceChildren(text ?? "");
  if (action) said.append(" ", action);
}

// Changes `old` into `fresh`, and touches nothing that is the same.
function become(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  if (old.nodeType !== Node.ELEMENT_NODE || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.id === "filter") return;
  if (old.matches("figure.drawn")) {
    old.dataset.chart = fresh.dataset.chart;
    become(old.querySelector("figcaption"), fresh.querySelector("figcaption"));
    return;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "open" && !name.startsWith("data-")) old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (name !== "open" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const left = [...old.childNodes].filter((node) => node.dataset?.added === undefined);
  const right = [...fresh.childNodes];
  right.forEach((node, place) => (left[place] ? become(left[place], node) : old.append(node)));
  left.slice(right.length).forEach((node) => node.remove());
}

// Whoever writes, has marked something, is about to press something in a list, or is further down in
// it, is not disturbed: rows move, and what was meant for one must not meet another.
function isRead(main) {
  const at = document.activeElement;
  const writes = main.contains(at) && at.matches("input, textarea, select");
  const isFarDown = main.querySelector("table.list, table.runs") && scrollY > 200;
  const marked = getSelection();
  const aims = main.querySelector("details.sure[open], :is(table.list, table.runs) tr:is(:hover, :focus-within)");
  return writes || isFarDown || aims || document.querySelector("dialog[open]") || (!marked.isCollapsed && main.contains(marked.anchorNode));
}

async function load(dress, asked = false) {
  const main = document.getElementById("main");
  if (busy) { again = true; return; }
  if (!asked && isRead(main)) {
    const show = document.createElement("button");
    show.textContent = "Show it";
    show.addEventListener("click", () => { scrollTo(0, 0); load(dress, true); });
    say("Something changed.", show);
    soon(dress, LEAST_MS);
    return;
  }
  busy = true;
  again = false;
  let failed = false;
  const started = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, signal: AbortSignal.timeout(20000) });
    if (answer.redirected && new URL(answer.url).pathname.endsWith("/login")) { ended(); return; }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("main");
    const said = document.getElementById("said");
    if (fresh && answer.ok) {
      fresh.querySelector("#said")?.replaceWith(said.cloneNode(true));
      become(main, document.adoptNode(fresh));
      say(isFull ? FULL : "");
      dress();
    } else if (fresh && answer.status < 500) {
      // What it is of may have been deleted.
      say(`The page shows what was so before. Now: ${fresh.querySelector(".alert")?.textContent ?? answer.status}`);
    } else {
      failed = true;
    }
  } catch {
    failed = true;
  } finally {
    busy = false;
    last = Date.now();
    if (failed) away();
    // Where the page is slow to make, it is asked for less often.
    const wait = Math.max(failed ? AGAIN_MS : LEAST_MS, 10 * (last - started));
    if (again || failed) soon(dress, wait);
  }
}

function soon(dress, wait) {
  clearTimeout(timer);
  timer = setTimeout(() => load(dress), wait);
}

function away() {
  say("The database or the server does not answer. The page shows what was so before; it goes on by itself.");
}

function ended() {
  isOver = true;
  const link = document.createElement("a");
  link.href = location.href;
  link.textContent = "Log in again";
  say("Your session has ended.", link);
  source?.close();
}

let source;

export function live(dress) {
  const url = document.getElementById("main")?.dataset.live;
  if (!url) return;
  let missed = false;
  let waiting = 0;

  function listen() {
    clearTimeout(waiting);
    if (isOver || document.hidden) return;
    source?.close();
    source = new EventSource(url);
    source.addEventListener("changed", () => soon(dress, Math.max(50, LEAST_MS - (Date.now() - last))));
    source.addEventListener("away", away);
    source.addEventListener("ended", ended);
    source.addEventListener("full", () => { isFull = true; say(FULL); });
    source.addEventListener("error", lost);
    source.addEventListener("open", () => {
      isFull = false;
      if (missed) { missed = false; load(dress); }
    });
  }

  function lost() {
    missed = true;
    if (isOver || isFull) return;
    away();
    // The browser tries again by itself, unless something answered that is no stream: a proxy for
    // a server that is away, or the login.
    if (source.readyState !== EventSource.CLOSED) return;
    load(dress);
    clearTimeout(waiting);
    waiting = setTimeout(listen, AGAIN_MS);
  }

  // Browsers have few connections to a server: a page that nobody sees keeps none.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { source?.close(); missed = true; }
    else listen();
  });
  addEventListener("pagehide", () => source?.close());
  listen();
}
