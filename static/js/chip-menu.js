// The menu of a chip: right click, long press, the menu key, m, or the ⋯ that stands beside the chip under the pointer
// or the focus. The dialog's contents are the server's; when a recompute followed, the page draws its tags anew.

const CHIPS = ".chip, .mini-chip, [data-word]";
let over = null; // the chip that ⋯ stands for
let from = null; // where the focus goes back to

const dialog = document.createElement("dialog");
dialog.id = "word-dialog";
dialog.className = "dialog";
dialog.setAttribute("aria-labelledby", "word-title");
document.body.append(dialog);

const more = document.createElement("button");
more.type = "button";
more.className = "chip-more";
more.textContent = "⋯";
more.hidden = true;
more.tabIndex = -1;
document.body.append(more);

function wordOf(chip) {
  if (chip.dataset.word) return chip.dataset.word;
  const name = chip.querySelector(".chip-name");
  if (name) return name.textContent.trim();
  return chip.firstChild?.textContent.trim() || "";
}

function placeOf(chip) {
  const cell = chip.closest("[data-id], [data-image]");
  const review = document.getElementById("review")?.dataset.decide?.match(/images\/(\d+)/);
  return {
    image: cell?.dataset.id || cell?.dataset.image || review?.[1] || "",
    run: chip.closest("[data-run]")?.dataset.run || "",
  };
}

function open(chip) {
  const word = wordOf(chip);
  if (!word) return;
  from = chip;
  more.hidden = true;
  dialog.innerHTML = '<p class="muted"><span class="spinner" aria-hidden="true"></span> …</p>';
  if (!dialog.open) dialog.showModal();
  const query = new URLSearchParams({ word, ...placeOf(chip) });
  htmx.ajax("GET", `/words/?${query}`, { target: dialog, swap: "innerHTML" });
}

dialog.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target !== dialog) return;
  const field = dialog.querySelector("#word-target");
  const pressed = dialog.querySelector(".word-verbs [aria-pressed=true]");
  (field || pressed || dialog.querySelector("#word-title"))?.focus();
});
dialog.addEventListener("htmx:responseError", () => {
  dialog.innerHTML = '<h2 id="word-title">Not possible now</h2><p class="message" data-tone="error">The server refused this. Reload the page and try again.</p><button type="button" class="btn" data-closes>Close</button>';
});
// a tag chosen in the box is the target; Enter there does not add a tag to the image
dialog.addEventListener("tag-chosen", (event) => {
  event.stopPropagation();
  const input = event.target.querySelector("input");
  input.value = event.detail.name;
  input.dispatchEvent(new Event("input", { bubbles: true }));
});
dialog.addEventListener("click", (event) => {
  if (event.target.closest("[data-closes]") || event.target === dialog) dialog.close();
});
dialog.addEventListener("keydown", (event) => {
  const buttons = [...dialog.querySelectorAll(".word-verbs button")];
  const at = buttons.indexOf(document.activeElement);
  if (at < 0 || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
  event.preventDefault();
  const next = buttons[(at + (event.key === "ArrowRight" ? 1 : buttons.length - 1)) % buttons.length];
  next.focus();
  next.click();
});
dialog.addEventListener("close", () => {
  const changed = dialog.querySelector("[data-word-jobs]");
  if (changed) location.reload(); // the tags of the run are others now
  else if (from?.isConnected) from.focus?.();
});

// -- ways in -----------------------------------------------------------------------------------------------------------
document.addEventListener("contextmenu", (event) => {
  const chip = event.target.closest?.(CHIPS);
  if (!chip || dialog.contains(chip)) return;
  event.preventDefault();
  open(chip);
});
const key = document.createElement("button"); // m, also in the list of keys
key.type = "button";
key.className = "visually-hidden";
key.tabIndex = -1;
key.dataset.key = "m";
key.dataset.keyRank = "14";
key.dataset.keyLabel = "Rules for a tag: ban, alias, replace";
key.textContent = "Rules for a tag";
key.addEventListener("click", () => {
  const chip = document.activeElement?.closest?.(CHIPS) || (over?.isConnected ? over : null)
    || document.querySelector("#tags .chip, .cell.is-active .mini-chip, .mini-chip");
  if (chip) open(chip);
});
document.body.append(key);

function show(chip) {
  if (dialog.contains(chip) || dialog.open) return;
  over = chip;
  const box = chip.getBoundingClientRect();
  more.hidden = false;
  more.setAttribute("aria-label", `Rules for ${wordOf(chip)}`);
  more.style.left = `${Math.min(box.right - 14, innerWidth - 34) + scrollX}px`;
  more.style.top = `${box.top - 10 + scrollY}px`;
}
document.addEventListener("pointerover", (event) => {
  if (event.pointerType === "touch") return;
  const chip = event.target.closest?.(CHIPS);
  if (chip) show(chip);
  else if (event.target !== more) more.hidden = true;
});
document.addEventListener("focusin", (event) => {
  const chip = event.target.closest?.(".chip");
  if (chip) show(chip);
  else if (event.target !== more && !dialog.open) more.hidden = true;
});
document.addEventListener("scroll", () => { more.hidden = true; }, { capture: true, passive: true });
more.addEventListener("click", () => { if (over?.isConnected) open(over); });
