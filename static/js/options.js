// Forms drawn from a schema: which fields are not at their start, and putting them back.
// <div data-options> holds <div data-field data-kind data-start>; the page also works without this.

function inputs(field) {
  return [...field.querySelectorAll("input:not([type=hidden], [data-slider]), select, textarea")];
}

function now(field) {
  const controls = inputs(field);
  switch (field.dataset.kind) {
    case "boolean": return String(controls[0].checked);
    case "choices": return JSON.stringify(controls.filter((c) => c.checked).map((c) => c.value).sort());
    default: return controls[0]?.value ?? "";
  }
}

function same(a, b, kind) {
  if (kind === "number" || kind === "integer") {
    if (a.trim() !== "" && b.trim() !== "") return Number(a) === Number(b);
    return a.trim() === b.trim();
  }
  return a.replaceAll("\r\n", "\n") === b.replaceAll("\r\n", "\n");
}

function mark(field) {
  const changed = !same(now(field), field.dataset.start, field.dataset.kind);
  field.toggleAttribute("data-changed", changed);
  const note = field.querySelector("[data-changed-mark]");
  if (note) {
    note.hidden = !changed;
    note.querySelector("[data-reset]").hidden = !changed;
  }
}

function count(form) {
  const line = form.querySelector("[data-reset-line]");
  if (!line) return;
  const n = form.querySelectorAll("[data-field][data-changed]").length;
  line.hidden = n === 0;
  line.querySelector("[data-changed-count]").textContent = n;
  line.querySelector("[data-reset-all]").hidden = n === 0;
}

function putBack(field) {
  const { kind, start } = field.dataset;
  const controls = inputs(field);
  if (kind === "boolean") controls[0].checked = start === "true";
  else if (kind === "choices") {
    const chosen = new Set(JSON.parse(start));
    for (const c of controls) c.checked = chosen.has(c.value);
  } else if (controls[0]) controls[0].value = start;
  controls[0]?.dispatchEvent(new Event("input", { bubbles: true }));
  for (const c of controls) c.setCustomValidity?.("");
}

function refresh(root) {
  const forms = root.matches?.("[data-options]") ? [root] : [...root.querySelectorAll("[data-options]")];
  for (const form of forms) {
    for (const field of form.querySelectorAll("[data-field][data-start]")) mark(field);
    count(form);
  }
}

function touched(event) {
  const field = event.target.closest?.("[data-options] [data-field][data-start]");
  if (!field) return;
  mark(field);
  count(field.closest("[data-options]"));
}
document.addEventListener("input", touched);
document.addEventListener("change", touched);

document.addEventListener("click", (event) => {
  const one = event.target.closest("[data-reset]");
  if (one) {
    const field = one.closest("[data-field]");
    putBack(field);
    inputs(field)[0]?.focus(); // the button is gone now
    return;
  }
  const all = event.target.closest("[data-reset-all]");
  if (!all) return;
  const form = all.closest("[data-options]");
  for (const field of form.querySelectorAll("[data-field][data-changed]")) putBack(field);
  inputs(form.querySelector("[data-field]"))[0]?.focus();
});

// Enter in a preset's name saves the preset, it does not send the form around it
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || !event.target.matches(".preset-save input[type=text]")) return;
  event.preventDefault();
  event.target.closest(".preset-save").querySelector("button").click();
});

refresh(document);
document.addEventListener("htmx:afterSettle", () => refresh(document));
window.addEventListener("pageshow", () => refresh(document)); // a browser fills in what was typed before
