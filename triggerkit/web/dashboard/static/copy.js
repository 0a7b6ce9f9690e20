// A button that copies beside each snippet and each command. It works without HTTPS, too.

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function button(of) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = "copy";
  made.dataset.added = "";
  made.textContent = "Copy";
  made.addEventListener("click", async () => {
    made.textContent = (await copy(of.textContent)) ? "Copied" : "Select it and press Ctrl+C";
    setTimeout(() => (made.textContent = "Copy"), 2000);
  });
  return made;
}

export function copyButtons() {
  for (const snippet of document.querySelectorAll("pre, .remedy code, .facts > code")) {
    if (snippet.nextElementSibling?.classList.contains("copy") || !snippet.textContent.trim()) continue;
    snippet.after(button(snippet));
  }
}
