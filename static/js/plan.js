// The new-experiment form: rows for more options. Everything else is the server's.

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-add-row]");
  if (!button) return;
  const rows = document.getElementById(button.dataset.addRow);
  const row = rows.lastElementChild.cloneNode(true);
  const n = rows.children.length + 1;
  for (const input of row.querySelectorAll("input")) {
    input.value = "";
    input.setAttribute("aria-label", input.getAttribute("aria-label").replace(/\d+$/, n));
  }
  rows.append(row);
  row.querySelector("input").focus();
});

// Enter in a field asks for the plan again; only the buttons start something
document.getElementById("plan")?.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.matches("input:not([type=checkbox], [type=radio])")) return;
  event.preventDefault();
  event.currentTarget.dispatchEvent(new Event("planned"));
});
