// Small things of several pages: questions before a button acts, sliders beside numbers, chosen tags.

import "./options.js";

// <form data-confirm="Sure?">
document.addEventListener("submit", (event) => {
  const question = event.target.dataset?.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// <input type=range data-slider="id of the number">: both show the same value; only the number is sent
function sliders(root) {
  for (const slider of root.querySelectorAll("[data-slider][hidden]")) {
    const number = document.getElementById(slider.dataset.slider);
    if (!number) continue;
    slider.hidden = false;
    slider.addEventListener("input", () => {
      number.value = slider.value;
      number.dispatchEvent(new Event("input", { bubbles: true }));
    });
    number.addEventListener("input", () => { if (number.value !== "") slider.value = number.value; });
  }
}
sliders(document);
document.body.addEventListener("htmx:afterSwap", (event) => sliders(event.detail.target.isConnected ? event.detail.target : document));
document.body.addEventListener("htmx:afterSettle", () => sliders(document));

// <… data-tags="name"> with a <tag-box>: what is chosen becomes a chip with a hidden field
document.addEventListener("tag-chosen", (event) => {
  const field = event.target.closest("[data-tags]");
  if (!field) return;
  const { name } = event.detail;
  const there = [...field.querySelectorAll("input[type=hidden]")].some((input) => input.value === name);
  if (there) return;
  const chip = document.createElement("span");
  chip.className = "chosen";
  const hidden = document.createElement("input");
  hidden.type = "hidden";
  hidden.name = field.dataset.tags;
  hidden.value = name;
  const drop = document.createElement("button");
  drop.type = "button";
  drop.className = "drop-chip";
  drop.setAttribute("aria-label", `Without ${name}`);
  drop.textContent = "×";
  chip.append(hidden, name, drop);
  event.target.before(chip);
});
document.addEventListener("click", (event) => {
  event.target.closest(".drop-chip")?.closest(".chosen")?.remove();
});

// an address says what was chosen, not what was left empty
document.addEventListener("submit", (event) => {
  if (event.target.method !== "get") return;
  for (const field of event.target.elements) {
    if (field.name && field.value === "" && !field.disabled) { field.disabled = true; field.dataset.rested = ""; }
  }
});
window.addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("[data-rested]")) { field.disabled = false; delete field.dataset.rested; }
});

// a page that nobody looks at does not ask for news
document.body.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden && event.detail.elt.matches("[hx-trigger^=every]")) event.preventDefault();
});
