// Rows of the matrix are fetched as they come into sight and let go when they are far away: a thousand images by
// twenty recipes would be a hundred thousand chips.
import { typing } from "./keys.js";

const box = document.querySelector(".matrix-scroll");
const table = box?.querySelector("table");
const page = Number(box?.dataset.page || 25);
const columns = table?.querySelectorAll("thead th").length || 1;
const say = (text) => { document.getElementById("live").textContent = text; };
const token = () => JSON.parse(document.body.getAttribute("hx-headers") || "{}")["X-CSRFToken"];
// what pressing a chip asks for: unjudged → accepted → rejected → unjudged
const press = { unjudged: "accept", accepted: "reject", added: "reject", rejected: "clear" };
const nameOf = (chip) => chip.querySelector(".chip-name").textContent;
let height = 190; // of a row, until some are there
let mark = "";
let total = 0;

function placeholder(block, rows) {
  const body = document.createElement("tbody");
  body.dataset.block = block;
  body.dataset.rows = rows;
  const cell = body.insertRow().insertCell();
  cell.colSpan = columns;
  cell.style.height = `${Math.round(height * rows)}px`;
  cell.className = "matrix-gap";
  return body;
}

async function fetchBlock(block) {
  const answer = await fetch(`${box.dataset.rows}&from=${block * page}&n=${page}`, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
  return { html: await answer.text(), total: Number(answer.headers.get("X-Total")), mark: answer.headers.get("X-Mark") };
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const body = entry.target;
    if (entry.isIntersecting) fill(body);
    else if (body.dataset.filled) empty(body);
  }
}, { root: box, rootMargin: "1200px 0px" });

async function fill(body) {
  if (body.dataset.filled || body.dataset.busy) return;
  body.dataset.busy = "1";
  try {
    const found = await fetchBlock(Number(body.dataset.block));
    if (found.total !== total || (mark && found.mark !== mark)) { delete body.dataset.busy; begin(found); return; }
    body.innerHTML = found.html;
    body.dataset.filled = "1";
    height = body.getBoundingClientRect().height / Math.max(1, body.rows.length) || height;
  } catch (error) {
    body.rows[0].cells[0].textContent = `These rows could not be read: ${error.message} Scroll away and back to try again.`;
  }
  delete body.dataset.busy;
}

function empty(body) {
  if (body.contains(document.activeElement)) return;
  const at = body.getBoundingClientRect().height;
  const gap = placeholder(body.dataset.block, body.rows.length);
  gap.rows[0].cells[0].style.height = `${Math.round(at)}px`;
  seen.unobserve(body);
  body.replaceWith(gap);
  seen.observe(gap);
}

function begin(found) {
  total = found.total;
  mark = found.mark;
  for (const body of [...table.tBodies]) { seen.unobserve(body); body.remove(); }
  const count = document.getElementById("matrix-count");
  count.textContent = `${total.toLocaleString()} ${total === 1 ? "image" : "images"}`;
  if (!total) {
    const body = placeholder(0, 1);
    body.rows[0].cells[0].textContent = "No image passes these filters.";
    body.rows[0].cells[0].style.height = "6rem";
    table.append(body);
    return;
  }
  for (let block = 0; block * page < total; block += 1) {
    const body = placeholder(block, Math.min(page, total - block * page));
    if (block === 0) { body.innerHTML = found.html; body.dataset.filled = "1"; }
    table.append(body);
    if (block === 0) height = body.getBoundingClientRect().height / Math.max(1, body.rows.length) || height;
    seen.observe(body);
  }
}

async function start() {
  try { begin(await fetchBlock(0)); } catch (error) {
    const cell = table.tBodies[0].rows[0].cells[0];
    cell.textContent = `The rows could not be read: ${error.message}`;
  }
}

// -- decisions --------------------------------------------------------------------------------------------------------
async function decide(chip, verb) {
  const row = chip.closest("tr");
  const cell = chip.closest("td, th");
  const place = [...row.cells].indexOf(cell);
  const open = row.querySelector("details")?.open;
  const data = new URLSearchParams({ image: row.dataset.image, tag: nameOf(chip), verb });
  chip.setAttribute("aria-busy", "true");
  const answer = await fetch(box.dataset.decide, { method: "POST", body: data, headers: { "X-CSRFToken": token() } });
  const text = await answer.text();
  if (!answer.ok) { chip.removeAttribute("aria-busy"); say(`Not saved: ${text}`); return; }
  const body = document.createElement("tbody");
  body.innerHTML = text;
  const fresh = body.rows[0];
  row.replaceWith(fresh);
  if (open) fresh.querySelector("details")?.setAttribute("open", "");
  const again = [...fresh.cells[place].querySelectorAll("button.chip")].find((b) => nameOf(b) === nameOf(chip));
  again?.focus();
  say(`${nameOf(chip)}: ${again?.dataset.state || verb}`);
}

box?.addEventListener("click", (event) => {
  const chip = event.target.closest("button.chip");
  if (chip) { decide(chip, press[chip.dataset.state] || "accept"); return; }
  const more = event.target.closest("[data-detail]");
  if (more) detail(more.dataset.detail, more.closest("tr").dataset.image);
});

async function detail(row, image) {
  const dialog = document.getElementById("matrix-detail");
  const answer = await fetch(box.dataset.cell.replace(/0\/0\/$/, `${row}/${image}/`));
  dialog.querySelector(".matrix-detail-body").innerHTML = answer.ok ? await answer.text() : "It could not be read.";
  dialog.showModal();
}

const steps = { ArrowRight: 1, ArrowLeft: -1 };
document.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || typing(event.target) || document.querySelector("dialog[open]")) return;
  const chip = event.target.closest?.(".matrix button.chip");
  const verb = { a: "accept", x: "reject", c: "clear" }[event.key];
  if (chip && verb) { event.preventDefault(); event.stopImmediatePropagation(); decide(chip, verb); return; }
  if (!(event.key in steps) && event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const all = [...table.querySelectorAll("button.chip")].filter((b) => b.getClientRects().length);
  if (!all.length) return;
  if (!chip) {
    if (event.target === box) return; // arrows scroll the box
    event.preventDefault(); all[0].focus(); return;
  }
  event.preventDefault();
  if (event.key in steps) { all[all.indexOf(chip) + steps[event.key]]?.focus(); return; }
  const cell = chip.closest("td, th");
  const place = [...cell.parentElement.cells].indexOf(cell);
  let row = cell.parentElement;
  do {
    row = event.key === "ArrowDown" ? next(row) : next(row, true);
    const found = row?.cells[place]?.querySelector("button.chip");
    if (found?.getClientRects().length) { found.focus(); return; }
  } while (row);
}, true);

function next(row, back = false) {
  const all = [...table.querySelectorAll("tbody tr[data-image]")];
  return all[all.indexOf(row) + (back ? -1 : 1)];
}

// -- the form ---------------------------------------------------------------------------------------------------------
document.addEventListener("change", (event) => {
  if (event.target.matches(".matrix-tools [data-submit]")) event.target.form.requestSubmit();
});
document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-apply-columns]")) return;
  const form = event.target.closest("form");
  for (const old of form.querySelectorAll("input[name=hide]")) old.remove();
  for (const column of form.querySelectorAll("[data-column]:not(:checked)")) {
    const input = document.createElement("input");
    input.type = "hidden"; input.name = "hide"; input.value = column.dataset.column;
    form.append(input);
  }
  form.requestSubmit();
});

async function look() {
  try {
    const now = await (await fetch(box.dataset.state)).json();
    if (mark && now.mark !== mark && !box.contains(document.activeElement?.closest("button.chip"))) await start();
    if (now.state === "running") window.setTimeout(look, 4000);
  } catch { window.setTimeout(look, 10000); }
}

if (box) {
  start();
  if (box.dataset.live) window.setTimeout(look, 4000);
}
