// The prompt editor: drafts saved while one types, mistakes beside their lines, variables at the cursor, images to try on.

const form = document.getElementById("prompt-form");
const PARTS = ["template", "system", "response_schema"];
let last = document.getElementById("id_template"); // the text area that had the cursor

// -- mistakes beside their lines (sent by the preview) ---------------------------------------------------------------
document.body.addEventListener("prompt-problems", (event) => {
  const found = event.detail.problems || event.detail.value?.problems || [];
  for (const part of PARTS) {
    const own = found.filter((p) => p.part === part);
    const area = document.getElementById(`area-${part}`);
    area.problems = own;
    const list = document.getElementById(`errors-${part}`);
    list.replaceChildren(...own.map((problem) => {
      const item = document.createElement("li");
      if (problem.line) {
        const link = document.createElement("button");
        link.type = "button";
        link.className = "btn-line";
        link.textContent = `Line ${problem.line}`;
        link.addEventListener("click", () => area.goTo(problem.line));
        item.append(link, `: ${problem.message}`);
      } else {
        item.textContent = problem.message;
      }
      return item;
    }));
    if (own.length) area.closest("details")?.setAttribute("open", "");
  }
});

// -- variables at the cursor -----------------------------------------------------------------------------------------
form.addEventListener("focusin", (event) => { if (event.target.matches("textarea")) last = event.target; });
form.addEventListener("click", (event) => {
  const button = event.target.closest("[data-insert]");
  if (!button || last.readOnly) return;
  const { insert, mark } = button.dataset;
  last.closest("details")?.setAttribute("open", "");
  last.closest("code-area").insert(insert);
  if (mark) {
    const end = last.selectionStart;
    const at = end - insert.length + insert.indexOf(mark);
    last.setSelectionRange(at, at + mark.length);
  }
});

// -- drafts ----------------------------------------------------------------------------------------------------------
const address = form.dataset.draft;
const state = document.getElementById("draft-state");
const conflict = document.getElementById("draft-conflict");
let timer = 0;
let dirty = false;
let saving = false;
let stopped = false; // while a conflict waits for an answer

function payload() {
  const data = new FormData(form);
  data.delete("newest");
  return data;
}

async function saveDraft() {
  clearTimeout(timer);
  if (!dirty || stopped) return;
  if (saving) { timer = setTimeout(saveDraft, 300); return; }
  saving = true;
  dirty = false;
  try {
    const response = await fetch(address, { method: "POST", body: payload(), headers: { "HX-Request": "true" } });
    const data = await response.json().catch(() => ({}));
    if (response.ok) {
      form.elements.revision.value = data.revision;
      state.textContent = `Draft saved ${data.at}`;
    } else if (response.status === 409) {
      ask(data.conflict);
    } else {
      dirty = true;
      state.textContent = data.error || "The draft is not saved: reload the page.";
    }
  } catch {
    dirty = true;
    state.textContent = "The draft is not saved: the server cannot be reached.";
    timer = setTimeout(saveDraft, 4000);
  }
  saving = false;
}

function ask(theirs) {
  stopped = true;
  state.textContent = "";
  conflict.querySelector("span").textContent = theirs
    ? `Your draft was changed in another window at ${theirs.at}. Which text counts?`
    : "Your draft was saved as a version or discarded in another window. What you type here is kept if you say so.";
  document.getElementById("take-theirs").hidden = !theirs;
  conflict.hidden = false;
  document.getElementById("take-theirs").onclick = () => {
    for (const part of PARTS) document.getElementById(`area-${part}`).value = theirs[part];
    form.elements.revision.value = theirs.revision;
    settle(false);
    form.dispatchEvent(new Event("input", { bubbles: true }));
    dirty = false;
  };
  document.getElementById("keep-mine").onclick = () => {
    form.elements.revision.value = theirs ? theirs.revision : 0;
    settle(true);
  };
}

function settle(save) {
  conflict.hidden = true;
  stopped = false;
  dirty = save;
  if (save) saveDraft();
}

if (address) {
  form.addEventListener("input", (event) => {
    if (!event.target.name) return;
    dirty = true;
    clearTimeout(timer);
    timer = setTimeout(saveDraft, 900);
  });
  // what was typed before this script was there, or what the browser filled in again
  if (PARTS.some((part) => form.elements[part].value !== form.elements[part].defaultValue)) {
    dirty = true;
    timer = setTimeout(saveDraft, 300);
  }
  form.addEventListener("submit", () => { dirty = false; clearTimeout(timer); });
  window.addEventListener("pagehide", () => {
    if (dirty && !stopped) navigator.sendBeacon(address, payload());
  });
}

// -- images ----------------------------------------------------------------------------------------------------------
const picked = document.getElementById("picked");
const dialog = document.getElementById("pick-dialog");
const KEY = "iwtag-picked";
const most = Number(picked.dataset.most);

function remembered() {
  try { return JSON.parse(localStorage.getItem(KEY)) || []; } catch { return []; }
}

let images = [...picked.querySelectorAll("[data-pick]")].map((span) => (
  { id: span.dataset.pick, thumb: span.querySelector("img").src, name: span.querySelector("img").alt }));
const before = remembered();
if (before.length) { images = before.slice(0, most); drawPicked(); }

function drawPicked() {
  picked.replaceChildren(...images.map((image, i) => {
    const span = document.createElement("span");
    span.className = "picked-image";
    span.dataset.pick = image.id;
    const input = document.createElement("input");
    input.type = "hidden";
    input.name = "image";
    input.value = image.id;
    const img = document.createElement("img");
    img.src = image.thumb;
    img.alt = image.name;
    img.addEventListener("error", () => { images = images.filter((one) => one.id !== image.id); store(); });
    const first = document.createElement("button");
    first.type = "button";
    first.className = "picked-first";
    first.append(img);
    first.setAttribute("aria-label", i ? `Preview ${image.name}` : `${image.name} is the preview`);
    first.addEventListener("click", () => { images = [image, ...images.filter((one) => one.id !== image.id)]; store(); });
    const drop = document.createElement("button");
    drop.type = "button";
    drop.className = "picked-drop";
    drop.textContent = "×";
    drop.setAttribute("aria-label", `Without ${image.name}`);
    drop.addEventListener("click", () => { images = images.filter((one) => one.id !== image.id); store(); });
    span.append(input, first, drop);
    return span;
  }));
  const count = document.getElementById("try-count");
  if (count) count.textContent = `${images.length} image${images.length === 1 ? "" : "s"}`;
  marks();
}

function store() {
  try { localStorage.setItem(KEY, JSON.stringify(images)); } catch { /* private window */ }
  drawPicked();
  htmx.trigger("#preview", "picked");
}

function marks() {
  for (const button of dialog.querySelectorAll("[data-pick]")) {
    button.setAttribute("aria-pressed", String(images.some((image) => image.id === button.dataset.pick)));
  }
}

dialog.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-pick]");
  if (!button) return;
  const { pick, thumb, name } = button.dataset;
  const there = images.some((image) => image.id === pick);
  if (there) images = images.filter((image) => image.id !== pick);
  else images = [...images, { id: pick, thumb, name }].slice(-most);
  store();
});
dialog.addEventListener("htmx:afterSwap", marks);
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-opens=pick-dialog]")) htmx.trigger(dialog.querySelector(".pick-images"), "opened");
});
