// Thresholds of a gate: what they would save and let through, said while they are moved. The figures came with the page.

const found = document.getElementById("gate-data");
const promise = document.getElementById("promise");
const form = document.querySelector("form[data-gate]");

for (const select of document.querySelectorAll("select[data-reload]")) {
  select.addEventListener("change", () => { location.search = select.dataset.reload + encodeURIComponent(select.value); });
}

if (found && promise && form) {
  const { accept, reject, settled } = JSON.parse(found.textContent);
  const inputs = {
    accept: form.querySelector("[name=accept_at], [name=accept]"),
    reject: form.querySelector("[name=reject_at], [name=reject]"),
  };
  const nearest = (rows, value) => rows.reduce((best, row, i) => (Math.abs(row[0] - value) < Math.abs(rows[best][0] - value) ? i : best), 0);
  const percent = (share) => String(Math.round(share * 1000) / 10);
  const numberOf = (input) => (input.value === "" ? null : Number(input.value));

  const tell = () => {
    const from = numberOf(inputs.accept);
    const upTo = numberOf(inputs.reject);
    const closed = inputs.reject.type === "range" && upTo === 0;
    for (const output of form.querySelectorAll("output")) {
      const input = document.getElementById(output.htmlFor[0] || output.getAttribute("for"));
      output.value = input === inputs.reject && closed ? "closed" : Number(input.value).toFixed(2);
    }
    delete promise.dataset.below;
    if (from === null) {
      if (upTo === null || closed) {
        promise.textContent = "settles nothing: every image goes to a person";
        return;
      }
      const at = nearest(reject, upTo);
      const found = reject[at][2];
      const part = settled.images && settled.rejected ? settled.rejected[at] / settled.images : 0;
      promise.textContent = `saves ${Math.round(part * 100)} % of reviews`;
      if (found) promise.textContent += `, of what it rejects ${percent(1 - found[0])} % is right (${percent(1 - found[2])}–${percent(1 - found[1])} %)`;
      return;
    }
    const row = nearest(accept, from);
    const column = upTo === null || closed ? 0 : 1 + nearest(reject, upTo);
    const saved = settled.images ? settled.counts[row][column] / settled.images : 0;
    const interval = accept[row][2];
    let text = `saves ${Math.round(saved * 100)} % of reviews`;
    let note = "";
    if (interval) {
      text += `, lets ${percent(1 - interval[0])} % of bad tags through (${percent(1 - interval[2])}–${percent(1 - interval[1])} %)`;
      const target = Number(document.getElementById("id_target")?.value || promise.dataset.target);
      if (interval[1] < target) {
        promise.dataset.below = "";
        note = `Below the target: of ${accept[row][1]} tags at least ${percent(interval[1])} % are right for sure, ${percent(target)} % are asked for.`;
      }
    } else {
      promise.dataset.below = "";
      note = "No decision is known from here up: nothing can be promised.";
    }
    promise.textContent = text;
    if (note) promise.append(Object.assign(document.createElement("small"), { textContent: note }));
  };
  form.addEventListener("input", tell);
  tell();
}
