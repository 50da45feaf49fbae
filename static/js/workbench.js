// The workbench: images on it, pieces of panes that are swapped, the fold of the setup. Its state is in the address,
// which the server writes.

const form = document.getElementById("bench");
const picked = document.getElementById("bench-picked");
const dialog = document.getElementById("pick-dialog");
const most = Number(form.dataset.most);

function changed() { htmx.trigger(form, "bench-changed"); }

// -- images ----------------------------------------------------------------------------------------------------------
function ids() { return [...picked.querySelectorAll("[data-pick]")].map((span) => span.dataset.pick); }

function add({ pick, thumb, name }) {
  const span = document.createElement("span");
  span.className = "picked-image";
  span.dataset.pick = pick;
  const input = Object.assign(document.createElement("input"), { type: "hidden", name: "i", value: pick });
  const img = Object.assign(document.createElement("img"), { src: thumb, alt: name });
  const drop = Object.assign(document.createElement("button"), { type: "button", className: "picked-drop", textContent: "×" });
  drop.setAttribute("aria-label", `Without ${name}`);
  span.append(input, img, drop);
  picked.append(span);
}

function marks() {
  const there = new Set(ids());
  for (const button of dialog.querySelectorAll("button[data-pick]")) {
    button.setAttribute("aria-pressed", String(there.has(button.dataset.pick)));
  }
}

picked.addEventListener("click", (event) => {
  if (!event.target.closest(".picked-drop")) return;
  event.target.closest("[data-pick]").remove();
  changed();
});

if (dialog) {
  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-pick]");
    if (!button) return;
    const there = picked.querySelector(`[data-pick="${button.dataset.pick}"]`);
    if (there) there.remove();
    else {
      if (ids().length >= most) picked.querySelector("[data-pick]").remove();
      add(button.dataset);
    }
    marks();
    changed();
  });
  dialog.addEventListener("htmx:afterSwap", marks);
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-opens=pick-dialog]")) htmx.trigger(dialog.querySelector(".pick-images"), "opened");
  });
}

// -- panes -----------------------------------------------------------------------------------------------------------
// what is typed into a dialog, or only says where random images come from, changes no result
form.addEventListener("change", (event) => {
  if (event.target.closest("[data-quiet]")) event.stopPropagation();
}, true);

// a piece that is fetched needs its own pane only: an address has no room for all texts
form.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.verb !== "get") return;
  const pane = event.detail.elt.closest("[data-pane]");
  if (!pane) return;
  const own = `${pane.dataset.pane}-`;
  for (const name of [...new Set(event.detail.formData ? [...event.detail.formData.keys()] : Object.keys(event.detail.parameters))]) {
    if (!name.startsWith(own) || /-(template|system|keep-\w+)$/.test(name)) {
      event.detail.formData ? event.detail.formData.delete(name) : delete event.detail.parameters[name];
    }
  }
});

// an answer that drops an edit, or draws the options of another model, changes what is asked
document.body.addEventListener("htmx:afterSwap", (event) => {
  const by = event.detail.requestConfig?.elt;
  if (by?.hasAttribute?.("data-then-changed")) changed();
});

form.addEventListener("click", (event) => {
  const to = event.target.closest("[data-to]");
  if (!to) return;
  fold(false);
  document.getElementById(to.dataset.to)?.focus();
});

const reopen = form.querySelector("dialog[data-reopen]");
if (reopen) reopen.showModal();

// -- the setup, folded or not ----------------------------------------------------------------------------------------
const button = document.getElementById("bench-fold");
const panes = document.getElementById("bench-panes");
function fold(hide) {
  panes.hidden = hide;
  button?.setAttribute("aria-expanded", String(!hide));
}
button?.addEventListener("click", () => fold(!panes.hidden));
