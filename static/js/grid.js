// The grid: one tab stop, arrows move, x selects, Shift extends, Esc clears; the bar appears with the selection.
// Without this file the links, the checkboxes and the bar's buttons work as they are.

import { typing } from "./keys.js";

const list = document.getElementById("cells");
const bar = document.getElementById("bulk");
let current = null; // the cell that has the list's one tab stop
let anchor = null; // where a range begins

const cells = () => [...list.querySelectorAll(".cell")];
const linkOf = (cell) => cell.querySelector(".cell-link");
const boxOf = (cell) => cell.querySelector("input[name=image]");
const selected = () => cells().filter((cell) => boxOf(cell).checked);

function adopt(root) {
  for (const cell of root.querySelectorAll(".cell:not([data-ready])")) {
    cell.dataset.ready = "";
    linkOf(cell).tabIndex = -1;
    boxOf(cell).tabIndex = -1;
    linkOf(cell).setAttribute("aria-keyshortcuts", "x");
    cell.classList.toggle("is-selected", boxOf(cell).checked); // kept by the browser when one comes back
  }
  if (!current?.isConnected) stop(cells()[0]);
}

function stop(cell) {
  if (!cell) return;
  if (current) linkOf(current).tabIndex = -1;
  current = cell;
  linkOf(cell).tabIndex = 0;
}

function go(cell) {
  if (!cell) return;
  stop(cell);
  linkOf(cell).focus({ preventScroll: true });
  cell.scrollIntoView({ block: "nearest" });
}

// pictures in one row, from where the browser put them
function columns() {
  const all = cells();
  const top = all[0]?.offsetTop;
  const n = all.findIndex((cell) => cell.offsetTop !== top);
  return n < 0 ? all.length : n;
}

function neighbour(key) {
  const all = cells();
  const at = all.indexOf(current);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[key];
  if (key === "Home") return all[0];
  if (key === "End") return all.at(-1);
  const wanted = all[at + step];
  // from above a last, shorter row: its last picture
  return wanted || (key === "ArrowDown" && all.at(-1).offsetTop > current.offsetTop ? all.at(-1) : null);
}

function set(cell, on) {
  boxOf(cell).checked = on;
  cell.classList.toggle("is-selected", on);
}

function range(from, to) {
  const all = cells();
  const [a, b] = [all.indexOf(from), all.indexOf(to)].sort((x, y) => x - y);
  all.slice(Math.max(a, 0), b + 1).forEach((cell) => set(cell, true));
}

function show() {
  if (!bar) return;
  const n = selected().length;
  const everything = document.getElementById("bulk-scope");
  if (!n) everything.checked = false;
  bar.toggleAttribute("data-empty", n === 0);
  list.classList.toggle("is-selecting", n > 0);
  document.getElementById("bulk-count").textContent = everything.checked ? "All that match" : `${n} selected`;
  document.body.style.paddingBottom = n ? `${bar.offsetHeight}px` : "";
}

function clear() {
  selected().forEach((cell) => set(cell, false));
  anchor = null;
  show();
}

function selectAll() {
  cells().forEach((cell) => set(cell, true));
  show();
}

if (list) {
  adopt(list);
  show();
  document.body.addEventListener("htmx:afterSettle", () => { adopt(list); show(); });
  window.addEventListener("pageshow", () => { cells().forEach((cell) => set(cell, boxOf(cell).checked)); show(); });

  list.addEventListener("focusin", (event) => stop(event.target.closest(".cell")));

  list.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell || !bar) return;
    const link = event.target.closest(".cell-link");
    if (event.shiftKey) {
      event.preventDefault();
      range(anchor?.isConnected ? anchor : current || cell, cell);
      anchor = cell;
      stop(cell);
      show();
    } else if (link && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      set(cell, !boxOf(cell).checked);
      anchor = cell;
      show();
    }
  });
  // a Shift+click on the label must not mark text
  list.addEventListener("mousedown", (event) => { if (event.shiftKey) event.preventDefault(); });

  list.addEventListener("change", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    set(cell, event.target.checked);
    anchor = cell;
    show();
  });

  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.altKey || event.isComposing || typing(event.target)) return;
    if (document.querySelector("dialog[open]")) return;
    const inside = list.contains(event.target);
    const chosen = { ArrowLeft: 1, ArrowRight: 1, ArrowUp: 1, ArrowDown: 1, Home: 1, End: 1 }[event.key];
    if (chosen && !event.ctrlKey && !event.metaKey && (inside || event.target === document.body || event.target.id === "main")) {
      event.preventDefault();
      if (!inside) { go(current); return; }
      const to = neighbour(event.key);
      if (!to) return;
      if (event.shiftKey && bar) {
        anchor ??= current;
        range(current, to);
        show();
      }
      go(to);
    } else if (event.key === "x" && !event.ctrlKey && !event.metaKey && bar && current) {
      event.preventDefault();
      if (!inside) go(current);
      set(current, !boxOf(current).checked);
      anchor = current;
      show();
    } else if (event.key === "a" && (event.ctrlKey || event.metaKey) && bar && inside) {
      event.preventDefault();
      selectAll();
    } else if (event.key === "Escape" && bar && selected().length) {
      event.preventDefault();
      clear();
      go(current);
    }
  });

  if (bar) {
    document.getElementById("bulk-all").addEventListener("click", selectAll);
    document.getElementById("bulk-none").addEventListener("click", () => { clear(); go(current); });
    document.getElementById("bulk-scope").addEventListener("change", show);
    const open = document.getElementById("bulk-open");
    open.addEventListener("click", () => {
      open.setAttribute("aria-expanded", String(bar.classList.toggle("is-open")));
      show();
    });
  }
}
