// Completes the word at the caret of the filter's box with those that are offered below it.

export function completions() {
  const box = document.getElementById("filter");
  const words = [...document.querySelectorAll(".suggestions [data-word]")].map((w) => w.dataset.word);
  if (!box || !words.length) return;
  const list = document.createElement("ul");
  list.className = "completions";
  list.id = "completions";
  list.dataset.added = "";
  list.setAttribute("role", "listbox");
  list.hidden = true;
  box.after(list);
  for (const [name, value] of [["role", "combobox"], ["aria-controls", list.id], ["aria-expanded", "false"]]) {
    box.setAttribute(name, value);
  }
  let chosen = -1;

  function close() {
    list.hidden = true;
    chosen = -1;
    box.setAttribute("aria-expanded", "false");
    box.removeAttribute("aria-activedescendant");
  }

  function typed() {
    const before = box.value.slice(0, box.selectionStart);
    return before.slice(before.lastIndexOf(" ") + 1);
  }

  function take(word) {
    const at = box.selectionStart;
    const start = at - typed().length;
    const isName = word.endsWith(":");
    box.setRangeText(isName ? word : `${word} `, start, at, "end");
    close();
    box.focus();
    if (isName) show();
  }

  function show() {
    const start = typed().toLowerCase();
    const names = [...new Set(words.map((word) => word.slice(0, word.indexOf(":") + 1)))];
    const fitting = (start.includes(":") ? words : names)
      .filter((word) => word.toLowerCase().startsWith(start) && word !== start).slice(0, 12);
    list.replaceChildren(...fitting.map((word, number) => {
      const item = document.createElement("li");
      item.textContent = word;
      item.id = `completion-${number}`;
      item.setAttribute("role", "option");
      item.addEventListener("mousedown", (event) => { event.preventDefault(); take(word); });
      return item;
    }));
    chosen = -1;
    list.hidden = !fitting.length;
    box.setAttribute("aria-expanded", String(!list.hidden));
  }

  function choose(number) {
    list.children[chosen]?.removeAttribute("aria-selected");
    chosen = (number + list.children.length) % list.children.length;
    list.children[chosen].setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", list.children[chosen].id);
  }

  box.addEventListener("input", show);
  box.addEventListener("focus", () => { if (!box.value) show(); });
  box.addEventListener("blur", close);
  box.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    if (event.key === "ArrowDown") choose(chosen + 1);
    else if (event.key === "ArrowUp") choose(chosen < 0 ? -1 : chosen - 1);
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) take(list.children[chosen].textContent);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
}
