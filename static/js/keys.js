// Keys for the whole page, read from the page itself: <button data-key="x" data-key-label="Reject">.
// Several keys are separated by spaces: data-key="ArrowRight j". "Ctrl+z" also means ⌘Z.
// A key presses the first visible element that carries it. No key fires while a person types (only one whose element has
// data-key-typing, such as Ctrl+s) or a dialog is open.

const shown = {
  ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc", " ": "Space", "Ctrl+z": "Ctrl Z", "Ctrl+s": "Ctrl S",
  "Ctrl+Enter": "Ctrl Enter",
  "Shift+ArrowLeft": "⇧ ←", "Shift+ArrowRight": "⇧ →", "Shift+ArrowUp": "⇧ ↑", "Shift+ArrowDown": "⇧ ↓",
};

export function typing(target) {
  return target instanceof Element
    && (target.isContentEditable || target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=button])"));
}

function visible(element) {
  return element.getClientRects().length > 0 && !element.disabled;
}

function nameOf(event) {
  const shift = event.shiftKey && event.key.length > 1 ? "Shift+" : ""; // "?" and "+" are typed with it
  return (event.ctrlKey || event.metaKey ? "Ctrl+" : "") + shift + event.key;
}

function keysOf(element) {
  return element.dataset.key.split(" ").filter(Boolean);
}

function find(key) {
  return [...document.querySelectorAll("[data-key]")].find((e) => keysOf(e).includes(key) && visible(e));
}

function labelOf(element) {
  return element.dataset.keyLabel || element.getAttribute("aria-label") || element.textContent.trim();
}

function openHelp() {
  const dialog = document.getElementById("keys");
  const list = dialog.querySelector("dl");
  const rows = new Map();
  const rank = (element) => Number(element.dataset.keyRank || 50); // the order of the list; else that of the page
  for (const element of [...document.querySelectorAll("[data-key]")].sort((a, b) => rank(a) - rank(b))) {
    if (visible(element)) rows.set(labelOf(element), [...new Set([...(rows.get(labelOf(element)) || []), ...keysOf(element)])]);
  }
  rows.set("Show these keys", ["?"]);
  list.replaceChildren(...[...rows].flatMap(([label, keys]) => {
    const term = document.createElement("dt");
    (keys.length > 3 ? [keys[0], "…", keys.at(-1)] : keys).forEach((key, i) => {
      if (i) term.append(" ");
      if (key === "…") { term.append("to"); return; }
      const kbd = document.createElement("kbd");
      kbd.textContent = shown[key] || key;
      term.append(kbd);
    });
    const text = document.createElement("dd");
    text.textContent = label;
    return [term, text];
  }));
  dialog.showModal();
}

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.altKey || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && typing(event.target)) { event.target.blur(); return; }
  if (typing(event.target)) {
    const element = event.ctrlKey || event.metaKey ? find(nameOf(event)) : null;
    if (!element?.hasAttribute("data-key-typing")) return;
    event.preventDefault();
    if (!event.repeat) element.click();
    return;
  }
  if (event.key === "?") { event.preventDefault(); openHelp(); return; }
  const key = nameOf(event);
  // Enter and Space belong to the link or button that has the focus; chips leave Enter to the page
  const own = event.target.closest?.("a[href], button, summary, [role=option]");
  if (own && (key === " " || (key === "Enter" && !own.matches(".chip")))) return;
  const element = find(key);
  if (!element) return;
  event.preventDefault();
  if (event.repeat && !element.hasAttribute("data-key-repeat")) return;
  if (element.matches("input:not([type=checkbox], [type=radio]), textarea, select")) element.focus();
  else element.click();
});

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-open-keys]")) openHelp();
});
