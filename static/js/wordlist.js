// A wordlist as text or as a table. The server reads and writes both forms, so that each means the same everywhere:
// the table is JSON that it made of the text, and the text what it made of the table.

const form = document.getElementById("list-form");
const PAGE = 100;
const FIELDS = {
  text: ["Word", ""], match: ["Found as", "word"], replacement: ["Becomes", null], aliases: ["Other names", []], parent: ["Broader term", ""],
  category: ["Category", ""], case: ["Case", "ignore"], note: ["Note", ""],
};
const MATCHES = { word: "word", exact: "whole tag", wildcard: "wildcard", regex: "regex" };

if (form) start();

function start() {
  const { kind } = form.dataset;
  const area = form.querySelector("code-area");
  const words = document.getElementById("id_words");
  const count = document.getElementById("list-count");
  const errors = document.getElementById("line-errors");
  const modes = document.getElementById("list-modes");
  const changes = document.getElementById("changes");
  const fields = Object.keys(FIELDS).filter((name) => (name === "replacement") === (kind === "replacement") || name !== "replacement")
    .filter((name) => kind === "vocabulary" || kind === "banned" || !["aliases", "parent"].includes(name))
    .filter((name) => kind !== "banned" || name !== "parent")
    .filter((name) => !["forced", "trigger"].includes(kind) || name !== "match");
  let rows = [];
  let page = 0;
  let filter = "";
  let timer = 0;
  modes.hidden = false;

  // -- which form it is in
  const mode = () => form.elements.mode.value;

  function body(json) {
    const data = new FormData(form);
    if (json) data.set("entries", JSON.stringify(rows));
    return data;
  }

  async function convert(check = false) {
    const data = body(mode() === "table");
    if (check) data.set("check", "1");
    const response = await fetch(form.dataset.convert, { method: "POST", body: data, headers: { "HX-Request": "true" } });
    if (!response.ok && response.status !== 422) throw new Error(`The server answered with ${response.status}.`);
    return response.json();
  }

  function showProblems(found) {
    if (mode() === "text") area.problems = found;
    errors.replaceChildren(...found.slice(0, 30).map((problem) => {
      const item = document.createElement("li");
      if (problem.line && mode() === "text") {
        const link = document.createElement("button");
        link.type = "button";
        link.className = "btn-line";
        link.textContent = `Line ${problem.line}`;
        link.addEventListener("click", () => area.goTo(problem.line));
        item.append(link, `: ${problem.message}`);
      } else {
        item.textContent = (problem.line ? `Row ${problem.line}: ` : "") + problem.message;
      }
      return item;
    }));
  }

  async function turn(to) {
    if (to === mode()) return;
    let found;
    try { found = await convert(); } catch (error) { showProblems([{ line: 0, message: error.message }]); return; }
    if (found.problems.length) { showProblems(found.problems); return; }
    form.elements.mode.value = to;
    showProblems([]);
    if (to === "table") { rows = found.entries; page = 0; draw(); } else { area.value = found.text; }
    show();
  }

  function show() {
    const table = mode() === "table";
    document.getElementById("text-mode").hidden = table;
    document.getElementById("table-mode").hidden = !table;
    for (const button of modes.children) button.setAttribute("aria-pressed", String(button.dataset.mode === mode()));
    tally();
  }

  function tally() {
    const n = mode() === "table" ? rows.filter((row) => row.text).length
      : words.value.split("\n").filter((line) => line.trim() && !/^#(\s|$)/.test(line.trim())).length;
    count.textContent = `${n.toLocaleString("en-GB")} entr${n === 1 ? "y" : "ies"}`;
  }

  function changed() {
    tally();
    clearTimeout(timer);
    timer = setTimeout(async () => {
      try {
        const found = await convert(true);
        showProblems(found.problems);
      } catch { /* the next change asks again */ }
      if (mode() === "table") form.elements.entries.value = JSON.stringify(rows);
      htmx.trigger(changes, "list-changed");
    }, Number(form.dataset.rows) > 20000 ? 1500 : 600);
  }

  // -- the table
  const head = form.querySelector(".entry-table thead");
  const tbody = form.querySelector(".entry-table tbody");
  const pages = document.getElementById("table-pages");
  const headRow = document.createElement("tr");
  headRow.append(...fields.map((name) => {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = FIELDS[name][0];
    return cell;
  }), document.createElement("td"));
  head.append(headRow);

  function matching() {
    const all = rows.map((row, i) => i);
    if (!filter) return all;
    const text = filter.toLowerCase();
    return all.filter((i) => [rows[i].text, ...(rows[i].aliases || []), rows[i].parent, rows[i].category, rows[i].replacement, rows[i].note]
      .some((value) => value?.toLowerCase().includes(text)));
  }

  function draw() {
    const found = matching();
    const last = Math.max(0, Math.ceil(found.length / PAGE) - 1);
    page = Math.min(page, last);
    const part = found.slice(page * PAGE, (page + 1) * PAGE);
    tbody.replaceChildren(...part.map(line));
    const from = found.length ? page * PAGE + 1 : 0;
    const text = document.createElement("span");
    text.className = "num small muted";
    text.textContent = `${from}–${page * PAGE + part.length} of ${found.length.toLocaleString("en-GB")}`;
    pages.replaceChildren(turnPage("‹", "Previous rows", -1, page === 0), text, turnPage("›", "Next rows", 1, page === last));
  }

  function turnPage(sign, label, step, off) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "btn btn-small btn-icon";
    button.textContent = sign;
    button.setAttribute("aria-label", label);
    button.disabled = off;
    button.addEventListener("click", () => { page += step; draw(); });
    return button;
  }

  function line(index) {
    const row = document.createElement("tr");
    for (const name of fields) {
      const cell = document.createElement("td");
      cell.append(input(index, name));
      row.append(cell);
    }
    const drop = document.createElement("button");
    drop.type = "button";
    drop.className = "btn btn-small btn-quiet btn-icon";
    drop.textContent = "×";
    drop.setAttribute("aria-label", `Remove ${rows[index].text || "this row"}`);
    drop.addEventListener("click", () => { rows.splice(index, 1); draw(); changed(); });
    const cell = document.createElement("td");
    cell.append(drop);
    row.append(cell);
    return row;
  }

  function input(index, name) {
    const [label, empty] = FIELDS[name];
    const value = rows[index][name] ?? empty;
    const choices = name === "match" ? MATCHES : name === "case" ? { ignore: "any case", match: "as written" } : null;
    const field = document.createElement(choices ? "select" : "input");
    if (choices) {
      for (const [key, text] of Object.entries(choices)) field.add(new Option(text, key, false, key === value));
    } else {
      field.type = "text";
      field.spellcheck = false;
      field.value = Array.isArray(value) ? value.join(", ") : value ?? "";
    }
    field.setAttribute("aria-label", `${label} of ${rows[index].text || "the new row"}`);
    field.addEventListener(choices ? "change" : "input", () => {
      const typed = name === "aliases" ? field.value.split(",").map((v) => v.trim()).filter(Boolean) : field.value;
      if (typed === empty || (Array.isArray(typed) && !typed.length)) delete rows[index][name];
      else rows[index][name] = typed;
      changed();
    });
    field.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      addRow(index + 1);
    });
    return field;
  }

  function addRow(at) {
    const row = { text: "" };
    if (kind === "replacement") row.replacement = "";
    rows.splice(at, 0, row);
    filter = "";
    document.getElementById("table-filter").value = "";
    page = Math.floor(at / PAGE);
    draw();
    tbody.children[at - page * PAGE]?.querySelector("input")?.focus();
  }

  document.getElementById("table-add").addEventListener("click", () => addRow(rows.length));
  document.getElementById("table-filter").addEventListener("input", (event) => { filter = event.target.value.trim(); page = 0; draw(); });
  document.getElementById("table-filter").addEventListener("keydown", (event) => { if (event.key === "Enter") event.preventDefault(); });
  modes.addEventListener("click", (event) => { const to = event.target.dataset.mode; if (to) turn(to); });
  words.addEventListener("input", changed);
  form.addEventListener("submit", () => {
    rows = rows.filter((row) => row.text || row.note || row.replacement);
    if (mode() === "table") form.elements.entries.value = JSON.stringify(rows);
  });
  const fold = form.querySelector(".syntax-fold");
  fold.addEventListener("toggle", () => { document.getElementById("syntax").hidden = !fold.open; });

  const own = document.getElementById("list-entries");
  if (own && form.hasAttribute("data-table") && Number(form.dataset.rows) > 0) {
    rows = JSON.parse(own.textContent);
    form.elements.mode.value = "table";
    form.elements.entries.value = own.textContent;
    draw();
  }
  show();
}
