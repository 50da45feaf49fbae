// Small things of the pages of prompts, wordlists and policies: dialogs, short names, fields of one format only.

// <button data-opens="id of a dialog">, <button data-closes>
document.addEventListener("click", (event) => {
  const opener = event.target.closest?.("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens)?.showModal();
  if (event.target.closest?.("[data-closes]")) event.target.closest("dialog")?.close();
  if (event.target.matches?.("dialog.dialog")) event.target.close(); // a click on the backdrop
});

// <input data-slug-for="id of the short name">: it follows the name until a person writes their own
for (const name of document.querySelectorAll("[data-slug-for]")) {
  const slug = document.getElementById(name.dataset.slugFor);
  let own = slug.value !== "";
  slug.addEventListener("input", () => { own = slug.value !== ""; });
  name.addEventListener("input", () => {
    if (own) return;
    slug.value = name.value.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase()
      .replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 80);
  });
}

// [data-only-format=ram] shows for that format
function formats(select) {
  const root = select.form || document;
  for (const part of root.querySelectorAll("[data-only-format]")) part.hidden = part.dataset.onlyFormat !== select.value;
}
for (const select of document.querySelectorAll("select[name=format]")) {
  formats(select);
  select.addEventListener("change", () => formats(select));
}

// a page that changed and is not saved asks before it is left; forms marked data-guard
const touched = new Set();
document.addEventListener("input", (event) => {
  const form = event.target.form;
  if (form?.hasAttribute("data-guard") && event.target.name) touched.add(form);
});
document.addEventListener("submit", (event) => touched.delete(event.target));
export function clean(form) { touched.delete(form); }
window.addEventListener("beforeunload", (event) => {
  if (touched.size) event.preventDefault();
});
