// The builder of recipes: mistakes beside their fields, as the check finds them.

document.body.addEventListener("recipe-problems", (event) => {
  const form = document.getElementById("recipe-form");
  for (const line of form.querySelectorAll("[data-live-error]")) line.remove();
  for (const field of form.querySelectorAll("[data-live-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("data-live-invalid");
  }
  for (const problem of event.detail.problems || []) {
    const input = document.getElementById(problem.id);
    if (!input) continue;
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("data-live-invalid", "");
    const line = document.createElement("p");
    line.className = "errors";
    line.dataset.liveError = "";
    line.textContent = problem.message;
    (input.closest(".field, fieldset") || input.parentElement).append(line);
  }
});

// a piece that is fetched needs its own channel only
document.body.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.verb !== "get") return;
  const select = event.detail.elt.closest("#recipe-form select[name]");
  if (!select) return;
  const own = `${select.name.split("-")[0]}-`;
  const data = event.detail.formData || event.detail.parameters;
  for (const name of [...new Set(event.detail.formData ? [...data.keys()] : Object.keys(data))]) {
    if (!name.startsWith(own) && name !== "keep") event.detail.formData ? data.delete(name) : delete data[name];
  }
});
